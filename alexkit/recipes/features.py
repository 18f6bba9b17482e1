"""Images and a network into one feature file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexkit.choices import FeatureDtype
from alexkit.errors import DataError
from alexkit.events import (
    Reporter,
    Saved,
    StageAdvanced,
    StageFinished,
    StageStarted,
)
from alexkit.features.extract import FeatureBatch, extract
from alexkit.features.layout import RowTable
from alexkit.features.store import FeatureStore
from alexkit.features.writer import FeatureWriter
from alexkit.images.batches import Batch, read_batches
from alexkit.images.source import ImageSource
from alexkit.models.zoo import Backbone
from alexkit.recipes.devices import decode_threads, one_device
from alexkit.recipes.inputs import (
    FEATURES_FILE,
    choose_backbone,
    choose_data,
    data_record,
    open_data,
    settled,
    tell_pack,
)
from alexkit.recipes.interrupts import stop_requests
from alexkit.recipes.ledger import LEDGER, Ledger
from alexkit.recipes.options import FeaturesOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.run_dir import Remembering, RunDir, now, versions

FILE_SUFFIXES = (".h5", ".hdf5")
STAGE = "features"
BATCH_SIZE = {"cpu": 64, "cuda": 256}
NO_FEATURES = "row holds NaN"


def run(options: FeaturesOptions, report: Reporter) -> dict[str, Any]:
    """Extracts ``options.layer`` of every image into one file and returns what it holds.

    ``--out F.h5`` is that file; otherwise a run folder holds ``features.h5``, the record of
    the run and the ledger of bad images. The same command continues an interrupted file.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; nothing is created before the data, the
            weights, the layers and the device are known to be usable.
    """
    began = time.monotonic()
    report = Remembering(report)
    data = choose_data(options.data, "alexkit features photos/", report)
    device = one_device(options.device, report)
    source = open_data(data, report)
    backbone = choose_backbone(options.model, options.weights, options.seed, report)
    layers = backbone.resolve_layers(options.layer)
    backbone.preprocess = settle_exif(backbone.preprocess, options.exif, source, report)
    tell_pack(source, backbone.preprocess, report)
    backbone.net.place([device])
    folder: RunDir | None = None
    with ExitStack() as stack:
        path, ledger_path = options.out, None
        if path is None or path.suffix not in FILE_SUFFIXES:
            folder = stack.enter_context(RunDir.open("features", options, report))
            folder.note("data", data_record(source))
            path, ledger_path = folder.path / FEATURES_FILE, folder.path / LEDGER
        shapes = backbone.net.layer_shapes()
        writer = stack.enter_context(
            FeatureStore.create(
                path,
                rows=RowTable(
                    tuple(source.record(i).path for i in range(len(source))),
                    source.labels,
                    source.splits,
                ),
                classes=source.classes,
                layers={layer: shapes[layer] for layer in layers},
                dtype=options.dtype,
                provenance=_provenance(options, data, source, backbone, layers, device),
                overwrite=options.overwrite,
            )
        )
        ledger = Ledger(ledger_path, strict=options.strict, report=report)
        _fill(writer, source, backbone, layers, device, options, report, ledger)
        if ledger.bad == len(source):
            writer.discard()
            raise DataError(
                f"none of the {len(source)} images in {source.root} could be used",
                hint="are these images? the lines above say what is wrong with each",
            )
        writer.finish({"ended": now()})
        result = {
            "file": str(path),
            "rows": len(source),
            "bad": ledger.bad,
            "repaired": ledger.repaired,
            "layers": {layer: list(shapes[layer]) for layer in layers},
            "model": backbone.spec.name,
            "weights": backbone.source,
            "seconds": time.monotonic() - began,
        }
        report(Saved("features", str(path)))
        if folder is not None:
            folder.finish(result)
    return result


def _fill(
    writer: FeatureWriter,
    source: ImageSource,
    backbone: Backbone,
    layers: list[str],
    device: torch.device,
    options: FeaturesOptions,
    report: Reporter,
    ledger: Ledger,
) -> None:
    """Extracts the rows the file still lacks, and writes each batch before the next.

    Raises:
        Interrupted: by a signal, after the batch at hand was written.
    """
    kind = device.type
    batch_size = settled(
        "batch size", options.batch_size, BATCH_SIZE[kind], f"for {kind}", report
    )
    pending = writer.pending()
    done, began = len(source) - len(pending), time.monotonic()
    for row, reason in writer.problems().items():
        ledger.add(source.record(row).path, reason, NO_FEATURES)
    found = feature_batches(
        source,
        pending,
        backbone,
        layers,
        device=device,
        dtype=options.dtype,
        batch_size=batch_size,
        workers=options.workers,
        watch=ledger.watch,
    )
    with stop_requests() as stop:
        report(StageStarted(STAGE, len(source), "images", done))
        for batch in found:
            for problem in batch.problems:
                ledger.add(source.record(problem.row).path, problem.reason, NO_FEATURES)
                writer.mark(*problem)
            writer.append(batch.rows, batch.values)
            done += len(batch.rows) + len(batch.problems)
            report(StageAdvanced(STAGE, done))
            stop.check(f"{done} of {len(source)} images are in {writer.partial}")
    ledger.close()
    report(StageFinished(STAGE, done, time.monotonic() - began))


def feature_batches(
    source: ImageSource,
    rows: npt.NDArray[np.int64],
    backbone: Backbone,
    layers: list[str],
    *,
    device: torch.device,
    dtype: FeatureDtype,
    batch_size: int,
    workers: int | None,
    watch: Callable[[Iterable[Batch]], Iterable[Batch]] = iter,
) -> Iterator[FeatureBatch]:
    """Features of some rows: what ``features`` writes, and ``info --verify`` compares with.

    Args:
        rows: (n) int64, in the order wanted.
        backbone: on its device already.
        layers: as :meth:`Backbone.resolve_layers <alexkit.models.zoo.Backbone.resolve_layers>`
            gives them.
        workers: decode threads; None is one a core.
        watch: hears of every batch before it is computed, and passes it on.

    Raises:
        OutOfMemory: a batch does not fit into the device's memory.
    """
    preprocess = backbone.preprocess
    batches = read_batches(
        source,
        rows,
        preprocess.square,
        batch_size=batch_size,
        threads=decode_threads(workers),
        exif=preprocess.exif,
    )
    return extract(
        backbone.net,
        watch(batches),
        layers,
        normalise=preprocess.normalise,
        device=device,
        dtype=dtype,
    )


def _provenance(
    options: FeaturesOptions,
    data: Path,
    source: ImageSource,
    backbone: Backbone,
    layers: list[str],
    device: torch.device,
) -> dict[str, Any]:
    """Format 1's provenance. A file is continued only by a command of equal fingerprint."""
    return {
        "fingerprint": {
            "model": backbone.spec.name,
            "weights": backbone.sha256,
            "preprocessing": backbone.preprocess.to_record(),
            "data": source.fingerprint(),
            "layers": layers,
            "dtype": options.dtype.value,
        },
        "versions": versions(),
        "model": backbone.spec.name,
        "weights": {"source": _found_again(backbone.source), "sha256": backbone.sha256},
        "layers": layers,
        "preprocessing": backbone.preprocess.to_record() | {"views": "center"},
        "data": {"root": source.root, "kind": source.kind, "path": os.path.abspath(data)},
        "dtype": options.dtype.value,
        "device": str(device),
        "command_line": sys.argv[1:],
        "started": now(),
    }


def _found_again(source: str) -> str:
    """A weight file's path from anywhere; random weights as they are told."""
    return os.path.abspath(source) if os.path.isfile(source) else source
