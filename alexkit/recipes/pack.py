"""Images decoded and squared once, into one file that is read from then on as it lies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.choices import Exif, Keep
from alexkit.errors import UsageError
from alexkit.events import Note, Reporter, Saved, Stage
from alexkit.images.batches import Batch, read_batches
from alexkit.images.budget import Budget
from alexkit.images.encode import QUALITY, EncodedBatch, JpegEncoding, read_encoded
from alexkit.images.pack import BLOCK_ROWS, SUFFIX, Status
from alexkit.images.packed import open_pack
from alexkit.images.packing import PackWriter, begin_pack
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource
from alexkit.recipes.devices import decode_threads
from alexkit.recipes.inputs import data_record, open_data
from alexkit.recipes.interrupts import stop_requests
from alexkit.recipes.ledger import LEDGER, Ledger, none_usable
from alexkit.recipes.options import PackOptions
from alexkit.recipes.run_dir import Remembering, RunDir, versions
from alexkit.reports.tables import size

PACK_FILE = "images" + SUFFIX
MAX_SIDE = 4096
NO_PIXELS = "row has no pixels"


def run(options: PackOptions, report: Reporter) -> dict[str, Any]:
    """Packs every image of ``options.data`` and returns what the pack holds.

    ``--out X.pack`` is that file; otherwise a run folder holds ``images.pack``, the record of
    the run and the ledger of bad images. The same command continues an interrupted pack, and
    the finished file is byte for byte the one that was never interrupted.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; nothing is created before the data is known
            to be usable and the space it takes has been told.
    """
    began = time.monotonic()
    if options.data is None:
        raise UsageError("no data was named", hint="type: alexkit pack DATA --out X.pack")
    if options.size > MAX_SIDE:
        raise UsageError(
            f"--size {options.size} is too large", hint=f"the largest is {MAX_SIDE}"
        )
    encoding = _encoding(options)
    report = Remembering(report)
    source = open_data(options.data, report)
    threads = decode_threads(options.workers)
    folder: RunDir | None = None
    with ExitStack() as stack:
        path, ledger_path = options.out, None
        record = data_record(source)
        if path is None or path.suffix != SUFFIX:
            folder = stack.enter_context(RunDir.open("pack", options, report))
            folder.note("data", record)
            path, ledger_path = folder.path / PACK_FILE, folder.path / LEDGER
        preprocess = Preprocess(
            resize=options.size, crop=options.size, exif=options.exif is Exif.APPLY
        )
        origin = {name: record[name] for name in ("root", "kind", "images", "fingerprint")}
        provenance = {"source": origin, "versions": versions()}
        ledger = Ledger(ledger_path, strict=options.strict, report=report)
        with begin_pack(
            path,
            source,
            preprocess,
            provenance,
            encoding=encoding,
            overwrite=options.overwrite,
            threads=threads,
            tell=lambda budget: _tell(budget, len(source), options, report),
        ) as writer:
            _fill(writer, source, preprocess, encoding, threads, report, ledger)
            if ledger.bad == len(source):
                writer.discard()
                raise none_usable(len(source), source.root)
            writer.finish()
        result = _result(path) | {"seconds": time.monotonic() - began}
        report(Saved("pack", str(path)))
        if folder is not None:
            folder.finish(result)
    return result


def _encoding(options: PackOptions) -> JpegEncoding | None:
    if options.keep is Keep.JPEG:
        return JpegEncoding(QUALITY if options.quality is None else options.quality)
    if options.quality is not None:
        raise UsageError("--quality is of JPEG files", hint="add --keep jpeg, or leave it out")
    return None


def _tell(budget: Budget, rows: int, options: PackOptions, report: Reporter) -> None:
    side, n = options.size, budget.measured
    each = f"{side} × {side} × 3 bytes"
    if n:
        each = f"{size(budget.whole // rows)}, judging by {n:,} of them"
    todo = f"{size(budget.rest)} of it still to be written; " if budget.continues else ""
    report(
        Note(
            f"the pack takes {'about ' if n else ''}{size(budget.whole)} ({rows:,} images ×"
            f" {each}); {todo}{size(budget.free)} are free in {budget.place}"
        )
    )


def _fill(
    writer: PackWriter,
    source: ImageSource,
    preprocess: Preprocess,
    encoding: JpegEncoding | None,
    threads: int,
    report: Reporter,
    ledger: Ledger,
) -> None:
    """Packs the blocks the file still lacks.

    Raises:
        Interrupted: by a signal, after the block at hand was written.
    """
    ledger.add_rows(source, writer.unreadable().items(), NO_PIXELS)
    rows = np.arange(writer.done, len(source))
    batches: Iterator[Batch] | Iterator[EncodedBatch]
    if encoding is None:
        batches = read_batches(
            source,
            rows,
            preprocess.train_square,
            batch_size=BLOCK_ROWS,
            threads=threads,
            exif=preprocess.exif,
        )
    else:
        batches = read_encoded(
            source, rows, preprocess, encoding, batch_size=BLOCK_ROWS, threads=threads
        )
    with (
        stop_requests() as stop,
        Stage(report, "pack", len(source), "images", writer.done) as stage,
    ):
        for batch in ledger.watch(batches):
            for bad in batch.bad:
                ledger.add(bad.path, bad.reason, NO_PIXELS)
            stage.reach(writer.append(stage.done, batch))
            stop.check(f"{stage.done} of {len(source)} images are in {writer.partial}")
    ledger.close()


def _result(path: Path) -> dict[str, Any]:
    pack = open_pack(path)
    bad = int((np.asarray(pack.status) == Status.UNREADABLE).sum())
    return {
        "file": str(path),
        "images": len(pack),
        "bad": bad,
        "repaired": len(pack.noted()) - bad,
        "classes": len(pack.classes),
        "side": pack.side,
        "holds": pack.holds,
        "bytes": path.stat().st_size,
        "fingerprint": pack.fingerprint(),
    }
