"""Images decoded and squared once, into one file that is read from then on as it lies."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.choices import Exif
from alexkit.errors import DataError, UsageError
from alexkit.events import Note, Reporter, Saved, StageAdvanced, StageFinished, StageStarted
from alexkit.images.batches import read_batches
from alexkit.images.pack import BLOCK_ROWS, SUFFIX, Status, pack_bytes
from alexkit.images.packed import open_pack
from alexkit.images.packing import PackWriter, begin_pack
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource
from alexkit.recipes.devices import decode_threads
from alexkit.recipes.inputs import data_record, open_data
from alexkit.recipes.interrupts import stop_requests
from alexkit.recipes.ledger import LEDGER, Ledger
from alexkit.recipes.options import PackOptions
from alexkit.recipes.run_dir import RUNS, Remembering, RunDir, versions
from alexkit.reports.tables import size

PACK_FILE = "images" + SUFFIX
STAGE = "pack"
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
    report = Remembering(report)
    source = open_data(options.data, report)
    _tell_budget(len(source), options, report)
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
            path, source, preprocess, provenance, overwrite=options.overwrite
        ) as writer:
            _fill(writer, source, preprocess, options, report, ledger)
            if ledger.bad == len(source):
                writer.discard()
                raise DataError(
                    f"none of the {len(source)} images in {source.root} could be used",
                    hint="are these images? the lines above say what is wrong with each",
                )
            writer.finish()
        result = _result(path) | {"seconds": time.monotonic() - began}
        report(Saved("pack", str(path)))
        if folder is not None:
            folder.finish(result)
    return result


def _tell_budget(rows: int, options: PackOptions, report: Reporter) -> None:
    place = Path(os.path.abspath(options.out or RUNS))
    place = next(parent for parent in (place, *place.parents) if parent.is_dir())
    side = options.size
    report(
        Note(
            f"the pack takes {size(pack_bytes(rows, side))} ({rows:,} images × {side} × {side}"
            f" × 3 bytes); {size(shutil.disk_usage(place).free)} are free in {place}"
        )
    )


def _fill(
    writer: PackWriter,
    source: ImageSource,
    preprocess: Preprocess,
    options: PackOptions,
    report: Reporter,
    ledger: Ledger,
) -> None:
    """Packs the blocks the file still lacks.

    Raises:
        Interrupted: by a signal, after the block at hand was written.
    """
    done, began = writer.done, time.monotonic()
    for row, reason in writer.unreadable().items():
        ledger.add(source.record(row).path, reason, NO_PIXELS)
    batches = read_batches(
        source,
        np.arange(done, len(source)),
        preprocess.train_square,
        batch_size=BLOCK_ROWS,
        threads=decode_threads(options.workers),
        exif=preprocess.exif,
    )
    with stop_requests() as stop:
        report(StageStarted(STAGE, len(source), "images", done))
        for batch in ledger.watch(batches):
            for bad in batch.bad:
                ledger.add(bad.path, bad.reason, NO_PIXELS)
            done = writer.append(done, batch)
            report(StageAdvanced(STAGE, done))
            stop.check(f"{done} of {len(source)} images are in {writer.partial}")
    ledger.close()
    report(StageFinished(STAGE, done, time.monotonic() - began))


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
        "bytes": path.stat().st_size,
        "fingerprint": pack.fingerprint(),
    }
