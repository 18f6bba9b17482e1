"""Rows of a feature file extracted again, and compared with what the file holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.choices import FeatureDtype, Precision
from alexkit.errors import DataError, FileMismatch, UsageError
from alexkit.events import Reporter, Stage, Warned
from alexkit.features.opening import damaged
from alexkit.features.store import FeatureStore
from alexkit.images.draws import Rows
from alexkit.images.source import ImageSource, stored_text
from alexkit.recipes.devices import one_device
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import open_data
from alexkit.recipes.options import InfoOptions
from alexkit.recipes.origin import network_of, stored_of

TOLERANCE = {FeatureDtype.FLOAT32: 1e-3, FeatureDtype.FLOAT16: 2e-3}
"""Of the row's largest value, from CPU to CPU. Sums in another order (batch size, threads)
differ by less than 1e-5 and float16 rounds by 5e-4; another image, weight file or crop is a
hundred times above."""
GPU_TOLERANCE = 1e-2
"""Where either device is none, or products were not in float32."""


@dataclass
class Compared:
    """The largest differences of one layer so far; ``relative`` is to a row's largest value."""

    absolute: float = 0.0
    relative: float = 0.0


def verify(store: FeatureStore, options: InfoOptions, report: Reporter) -> dict[str, Any]:
    """Extracts ``options.images`` rows again, drawn by ``options.seed``, and compares.

    Returns:
        ``rows``: how many; ``tolerance``: of a row's largest value; ``layers``: name ->
        ``absolute`` and ``relative``, the largest differences met.

    Raises:
        UsageError: the file has no row with features yet.
        DataError: the images are not where they were, or not where ``--data`` says.
        WeightsMismatch: the weights are not those the file was made with.
        FileMismatch: a row differs by more than the tolerance, or its image is gone.
        DamagedFile: the file does not say what it was made with.
    """
    device = one_device(options.device, report)
    backbone = network_of(store, options.weights, report)
    source = _source(store, options.data, report)
    rows = _drawn(store, options.images, options.seed)
    there, gone = _places(store, rows, source, report)
    wrong = [f"{store.paths[row]!r} is gone" for row in gone]
    differing: list[str] = []
    dtype = FeatureDtype(store.dtype.name)
    on_cpu = device.type == "cpu" == store.provenance.get("device")
    stored = stored_of(store)
    exact = on_cpu and stored.precision is Precision.FLOAT32
    tolerance = TOLERANCE[dtype] if exact else GPU_TOLERANCE
    compared = {name: Compared() for name in store.layers}
    job = Job.of(source, backbone, stored, device, options, report)
    with Stage(report, "verify", len(rows), "images", len(gone)) as stage:
        for batch in job.features(np.fromiter(there, np.int64, len(there))):
            for problem in batch.problems:
                wrong.append(f"{store.paths[there[problem.row]]!r}: {problem.reason}")
            mine = np.array([there[row] for row in batch.rows.tolist()], np.int64)
            for layer, values in batch.values.items():
                differing += _compare(store, layer, mine, values, compared[layer], tolerance)
            stage.advance(len(batch.rows) + len(batch.problems))
    wrong += differing
    if wrong:
        some = "; ".join(wrong[:3]) + ("; …" if len(wrong) > 3 else "")
        raise FileMismatch(
            f"{store.path} is not what these images and weights give: {some}",
            hint="were images edited or features changed? `alexkit features` makes them again",
        )
    return {
        "rows": len(rows),
        "tolerance": tolerance,
        "layers": {name: vars(found) for name, found in compared.items()},
    }


def _compare(
    store: FeatureStore,
    layer: str,
    rows: Rows,
    values: npt.NDArray[Any],
    compared: Compared,
    tolerance: float,
) -> list[str]:
    """Notes the differences of some rows; returns a line for each that differs too much."""
    if values.shape[1:] != store.layers[layer]:
        raise damaged(
            store.path,
            f"has {layer} as {store.layers[layer]}, and the network gives {values.shape[1:]}",
        )
    stored = store.values(layer, rows).reshape(len(rows), -1).astype(np.float64)
    again = values.reshape(len(rows), -1).astype(np.float64)
    absolute = np.abs(stored - again).max(axis=1)
    largest = np.abs(again).max(axis=1)
    relative = absolute / np.where(largest > 0, largest, 1)
    compared.absolute = max(compared.absolute, float(absolute.max()))
    compared.relative = max(compared.relative, float(relative.max()))
    return [
        f"{store.paths[rows[i]]!r} differs in {layer} by {relative[i]:.2g} of its largest value"
        for i in np.flatnonzero(relative > tolerance)
    ]


def _drawn(store: FeatureStore, count: int, seed: int) -> Rows:
    """``count`` rows that have features, each once, ascending; all for 0."""
    rows = store.rows()
    if not rows.size:
        raise UsageError(
            f"{store.path} has no row with features", hint="there is nothing to verify"
        )
    if not 0 < count < rows.size:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))


def _source(store: FeatureStore, data: Path | None, report: Reporter) -> ImageSource:
    """The images that the file was made from."""
    if data is None:
        data = store.data
        if data is None:
            raise damaged(store.path, "does not say where its images were")
        if not data.exists() and not any(letter in str(data) for letter in "{*?["):
            raise DataError(
                f"{store.path} was made from {data}, which is not there any more",
                hint="say where the images are now: --data DATA",
            )
    return open_data(data, report)


def _places(
    store: FeatureStore, rows: Rows, source: ImageSource, report: Reporter
) -> tuple[dict[int, int], list[int]]:
    """Row of the source -> row of the file, by path where the data changed, which is said;
    and the rows that are not there."""
    if source.fingerprint() == store.provenance["fingerprint"].get("data"):
        return {row: row for row in rows.tolist()}, []
    report(
        Warned(f"{source.root} has other images, labels or sizes than {store.path} was made of")
    )
    wanted: dict[str, list[int]] = {}
    for row in rows.tolist():
        wanted.setdefault(store.paths[row], []).append(row)
    there: dict[int, int] = {}
    for at in range(len(source)):
        if found := wanted.get(stored_text(source.record(at).path)):
            there[at] = found.pop(0)
    return there, sorted(row for left in wanted.values() for row in left)
