"""A feature file for programs that do not read HDF5: NumPy's .npz, and its rows as CSV."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter, Saved, Stage
from alexkit.features.store import FeatureStore
from alexkit.images.source import SPLITS
from alexkit.recipes import export_network
from alexkit.recipes.inputs import FEATURES_FILE
from alexkit.recipes.npz import array_in, put_array
from alexkit.recipes.out_file import check_out
from alexkit.recipes.run_dir import RECORD, read_record
from alexkit.recipes.space import need
from alexkit.recipes.using import ExportOptions
from alexkit.reports.features import ROW_COLUMNS, row_records
from alexkit.reports.tables import write_csv
from alexkit.whole_file import MAKE_ROOM, whole_file, writing

BLOCK_BYTES = 16 * 2**20
"""How much of a layer is in memory at a time."""

READ_AS_IT_IS = (".mat", ".h5", ".hdf5")


def run(options: ExportOptions, report: Reporter) -> dict[str, Any]:
    """Exports a network, see :func:`alexkit.recipes.export_network.run`, or a feature file.

    Writes ``options.path`` in the format that ``--out`` ends in; returns what it holds.

    ``.npz``: an array for each layer, all rows as they lie in the file (NaN where ``status``
    is not 1), with ``path``, ``label``, ``split``, ``status``, ``classes`` and ``provenance``
    (JSON text) beside them. ``.csv``: the table of rows. The file appears when it is complete.

    Raises:
        UsageError: no path, another format, or ``--layer`` with CSV.
        OutputExists: the file is there, and no ``--overwrite``.
        FileMismatch: the feature file is unfinished.
        OutOfSpace: the disk is full or cannot be written.
        AlexkitError: see :meth:`FeatureStore.open <alexkit.features.store.FeatureStore.open>`.
    """
    if options.path is not None and export_network.is_network(options.path):
        return export_network.run(options, report)
    began = time.monotonic()
    path = _feature_file(options.path)
    out = options.out
    if out is None:
        out = path.with_suffix(".npz")
        report(Chosen("out", str(out), "beside the feature file"))
    write = _format(out, options)
    check_out(out, options.overwrite, path)
    with FeatureStore.open(path) as store:
        layers = store.named(options.layer)
        layers = layers if write is _write_npz else []
        with writing(out, MAKE_ROOM):
            out.parent.mkdir(parents=True, exist_ok=True)
            hint = "free some space, choose another --out, or export fewer layers"
            need(out.parent, sum(map(store.nbytes, layers)), str(out), hint)
            with whole_file(out) as file:
                write(store, layers, file, report)
        result = {
            "file": str(out),
            "rows": len(store),
            "layers": {layer: list(store.layers[layer]) for layer in layers},
            "bytes": out.stat().st_size,
            "seconds": time.monotonic() - began,
        }
    report(Saved("exported", str(out)))
    return result


def _feature_file(path: Path | None) -> Path:
    """The feature file that was named, or that of the run folder that was."""
    if path is None:
        raise UsageError(
            "no file was named", hint="type: alexkit export features.h5 --out features.npz"
        )
    if not path.is_dir():
        return path
    if not (path / RECORD).exists():
        raise UsageError(
            f"{path} is no run folder", hint="name a feature file or its run folder"
        )
    command = read_record(path)["command"]
    if command != "features":
        raise UsageError(
            f"{path} is a {command} run, and features and networks are exported",
            hint="name a feature file, weights, or the run folder that holds them",
        )
    return path / FEATURES_FILE


def _format(out: Path, options: ExportOptions) -> Callable[..., None]:
    suffix = out.suffix.lower()
    if suffix == ".npz":
        return _write_npz
    if suffix == ".csv":
        if options.layer:
            raise UsageError(
                "a .csv holds the rows, not the features",
                hint="leave --layer out, or export the features to .npz",
            )
        return _write_csv
    if suffix in READ_AS_IT_IS:
        raise UsageError(
            f"{options.path} is read as it is, no {suffix} is needed",
            hint="MATLAB: h5read('F.h5', '/features/fc7'); Octave: load F.h5; a .mat of"
            " version 7.3 is HDF5 too",
        )
    raise UsageError(f"{out} is in no format known here", hint="it ends in .npz or .csv")


def _write_npz(
    store: FeatureStore, layers: list[str], file: BinaryIO, report: Reporter
) -> None:
    """A zip of arrays, each layer in blocks, so that no layer is in memory as a whole."""
    columns = {
        "path": np.array(store.paths),
        "label": store.labels,
        "split": np.array([split.value for split in SPLITS])[store.splits],
        "status": store.status,
        "classes": np.array(store.classes, np.str_),
        "provenance": np.array(json.dumps(store.provenance)),
    }
    total = len(store) * len(layers)
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        Stage(report, "export", total, "rows") as stage,
    ):
        for name, values in columns.items():
            put_array(archive, name, values)
        for layer in layers:
            shape = store.layers[layer]
            step = max(1, BLOCK_BYTES // (store.dtype.itemsize * int(np.prod(shape))))
            with array_in(archive, layer, store.dtype, (len(store), *shape)) as member:
                for first in range(0, len(store), step):
                    rows = np.arange(first, min(first + step, len(store)), dtype=np.int64)
                    member.write(store.values(layer, rows).tobytes())
                    stage.advance(len(rows))


def _write_csv(
    store: FeatureStore, layers: list[str], file: BinaryIO, report: Reporter
) -> None:
    """The table of rows, in UTF-8."""
    write_csv(file, [ROW_COLUMNS])
    write_csv(file, ([record[name] for name in ROW_COLUMNS] for record in row_records(store)))
