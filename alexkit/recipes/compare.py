"""Layers of feature files compared: distances between images, RSA, CKA.

Each layer is read once. What is kept of it, for each pair of images a distance, a rank and
an inner product, lies in files beside the result, so that memory is bounded by one n × n
float32 matrix whatever the width and number of layers.
"""

from __future__ import annotations

import shutil
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.analysis.cka import LEAST_ROWS, unbiased_cka
from alexkit.analysis.condensed import Condensed, pairs
from alexkit.analysis.gram import Gram, gram
from alexkit.analysis.rsa import MOST_ROWS, bootstrap, rank, spearman
from alexkit.errors import DataError, OutOfMemory, UsageError
from alexkit.events import Chosen, Note, Reporter, Saved, Stage
from alexkit.features.store import FeatureStore
from alexkit.images.draws import Rows
from alexkit.recipes.eval_rows import EvalRows, align, free_memory
from alexkit.recipes.inputs import choose_feature_files
from alexkit.recipes.npz import array_in, put_array
from alexkit.recipes.options import CompareOptions
from alexkit.recipes.run_dir import Remembering, RunDir, write_json
from alexkit.recipes.space import need
from alexkit.reports.plots import draw_comparison
from alexkit.reports.tables import size
from alexkit.whole_file import whole_file

COMPARE_FILE, ARRAYS_FILE, FIGURE = "compare.json", "compare.npz", "compare.png"
SCRATCH = "scratch"
SLAB_BYTES = 64 * 2**20
"""Columns read together."""
BYTES_A_PAIR = 4 + 4 + 8 + 4
"""On disk at most: distance, rank, inner product, and the distance again in the .npz."""
COPIED_BYTES = 4 * 2**20
BYTES_BESIDE = 500 * 2**20
"""Memory for what is not the matrix of inner products."""


@dataclass(frozen=True)
class Layer:
    """One layer of one file, as it is compared.

    Attributes:
        name: the layer, with its file where there are several.
        places: (n) the images' rows in the file.
    """

    name: str
    store: FeatureStore
    layer: str
    places: Rows

    def slabs(self) -> Iterator[npt.NDArray[np.float32]]:
        """(n, k) float32 of all its columns; views of an image are averaged."""
        views = self.store.views > 0
        shape = self.store.layers[self.layer][int(views) :]
        a_step = 4 * len(self.places) * int(np.prod(shape[1:])) * (self.store.views or 1)
        step = max(1, SLAB_BYTES // a_step)
        for start in range(0, shape[0], step):
            part = slice(start, start + step)
            values = self.store.values(
                self.layer, self.places, (slice(None), part) if views else (part,)
            )
            values = self.store.averaged(values)
            yield values.reshape(len(values), -1).astype(np.float32, copy=False)


def run(options: CompareOptions, report: Reporter) -> dict[str, Any]:
    """Compares every two layers and writes ``compare.json``, ``.npz`` and ``.png``.

    Returns what the JSON holds: ``metric``, ``stimuli``, ``layers`` and ``pairs``, each with
    ``rsa`` (Spearman's ρ of the distances, ``mean`` aside its 95 % interval ``low`` and
    ``high``) and ``cka``; None where a layer tells no images apart. The ``.npz`` has the
    matrices ``rsa``, ``rsa_low``, ``rsa_high`` and ``cka`` (L, L), ``names`` (L), ``paths``
    (n), and ``rdm_0`` … (n (n - 1) / 2) float32, as ``scipy.spatial.distance.squareform``
    takes them.

    Raises:
        UsageError: there is only one layer.
        DataError: too few images, or a row of which the metric says nothing.
        OutOfMemory: the matrix of inner products takes more than is free.
        OutOfSpace: the disk lacks room for what is kept of the layers.
        AlexkitError: see :mod:`alexkit.errors`.
    """
    began = time.monotonic()
    report = Remembering(report)
    files = choose_feature_files(options.files, report)
    with ExitStack() as stack:
        stores = [stack.enter_context(FeatureStore.open(file)) for file in files]
        names = [store.named(options.layer) for store in stores]
        if sum(map(len, names)) < 2:
            raise UsageError(
                "there is one layer only, and layers are compared",
                hint="name another file, or extract more layers into this one",
            )
        rows = align(stores, strict=options.strict, report=report)
        _check_rows(rows)
        layers = [
            Layer(name if len(stores) == 1 else f"{store.path} {name}", store, name, places)
            for store, chosen, places in zip(stores, names, rows.places, strict=True)
            for name in chosen
        ]
        with RunDir.open("compare", options, report) as folder:
            found = _compare(layers, rows, options, folder.path, report)
            result = found | {"seconds": time.monotonic() - began}
            write_json(folder.path / COMPARE_FILE, result)
            report(Saved("comparison", str(folder.path / COMPARE_FILE)))
            folder.finish({"file": str(folder.path / COMPARE_FILE)})
    return result


def _check_rows(rows: EvalRows) -> None:
    n = len(rows.paths)
    if n < LEAST_ROWS:
        raise DataError(
            f"there are {n} images with features in every file",
            hint=f"at least {LEAST_ROWS} are needed",
        )
    needed, free = 4 * n * n + BYTES_BESIDE, free_memory()
    if n > MOST_ROWS or (free and needed > free):
        raise OutOfMemory(
            f"{n:,} images need {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB "
            "are free",
            hint=f"extract features of fewer images, {MOST_ROWS:,} at most",
        )


def _compare(
    layers: Sequence[Layer],
    rows: EvalRows,
    options: CompareOptions,
    folder: Path,
    report: Reporter,
) -> dict[str, Any]:
    scratch, n = folder / SCRATCH, len(rows.paths)
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    scratch.mkdir()
    try:
        _tell_space(folder, len(layers) * pairs(n) * BYTES_A_PAIR, report)
        kept = [
            _keep(scratch, i, layer, options, rows, report) for i, layer in enumerate(layers)
        ]
        report(Note("correlating ranks and inner products"))
        ranked = [one.ranks for one in kept]
        rsa = spearman(ranked)
        cka = unbiased_cka([one.kernel for one in kept], [one.sums for one in kept])
        with Stage(report, "bootstrap", n, "images") as stage:
            interval = bootstrap(ranked, n, options.bootstrap, options.seed, stage.reach)
        names = [layer.name for layer in layers]
        arrays = {
            "names": np.array(names),
            "paths": np.array(rows.paths),
            "rsa": rsa,
            "rsa_low": interval.low,
            "rsa_high": interval.high,
            "cka": cka,
        }
        rdms = [one.distances for one in kept]
        _write_arrays(folder / ARRAYS_FILE, arrays, rdms)
        draw_comparison(names, rsa, cka, folder / FIGURE)
        for what, file in (("arrays", ARRAYS_FILE), ("figure", FIGURE)):
            report(Saved(what, str(folder / file)))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "metric": options.metric.value,
        "stimuli": n,
        "draws": options.bootstrap,
        "layers": [
            {"file": str(layer.store.path), "layer": layer.layer, "name": layer.name}
            for layer in layers
        ],
        "pairs": [
            {
                "first": names[i],
                "second": names[j],
                "rsa": {
                    "mean": _number(rsa[i, j]),
                    "low": _number(interval.low[i, j]),
                    "high": _number(interval.high[i, j]),
                },
                "cka": _number(cka[i, j]),
            }
            for i, j in combinations(range(len(names)), 2)
        ],
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _gram(layer: Layer, report: Reporter) -> Gram:
    total = int(np.prod(layer.store.layers[layer.layer])) // (layer.store.views or 1)
    with Stage(report, layer.name, total, "columns") as stage:

        def watched() -> Iterator[npt.NDArray[np.float32]]:
            for slab in layer.slabs():
                yield slab
                stage.advance(slab.shape[1])

        return gram(watched(), len(layer.places))


@dataclass(frozen=True)
class _Kept:
    """What is kept of a layer: distances, their ranks, inner products and their sums."""

    distances: Condensed
    ranks: Condensed
    kernel: Condensed
    sums: npt.NDArray[np.float64]


def _keep(
    scratch: Path,
    index: int,
    layer: Layer,
    options: CompareOptions,
    rows: EvalRows,
    report: Reporter,
) -> _Kept:
    """Reads a layer and writes what is kept of it.

    Raises:
        DataError: the metric says nothing of a row.
    """
    made = _gram(layer, report)
    undefined = made.undefined(options.metric)
    if undefined.size:
        path = rows.paths[int(undefined[0])]
        raise DataError(
            f"{layer.name} has {undefined.size} rows without a {options.metric.value} "
            f"distance, as all their numbers are equal, the first {path!r}",
            hint="use --metric euclidean, or leave the layer out",
        )
    distances = Condensed.written(
        scratch / f"distances-{index}", np.float32, made.distances(options.metric)
    )
    kernel = Condensed.written(
        scratch / f"kernel-{index}", made.centred.dtype, map(made.below, range(len(made)))
    )
    sums = made.kernel_sums()
    del made  # the largest of all, and ranking takes half as much again
    ranks = Condensed.written(scratch / f"ranks-{index}", np.uint32, [rank(distances)])
    return _Kept(distances, ranks, kernel, sums)


def _tell_space(folder: Path, needed: int, report: Reporter) -> None:
    hint = "free some space, choose another --out, or compare fewer layers"
    free = need(folder, needed, f"the run in {folder}", hint)
    said = f"{size(needed)} at most, {size(free)} free"
    report(Chosen("disk", said, "distances, ranks and inner products of every pair"))


def _write_arrays(
    path: Path, arrays: dict[str, npt.NDArray[Any]], rdms: Sequence[Condensed]
) -> None:
    """An .npz, the distances copied from where they lie, that appears when it is whole."""
    with whole_file(path) as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            put_array(archive, name, array)
        for i, rdm in enumerate(rdms):
            with (
                array_in(archive, f"rdm_{i}", rdm.dtype, (rdm.size,)) as member,
                rdm.path.open("rb") as file,
            ):
                shutil.copyfileobj(file, member, COPIED_BYTES)
