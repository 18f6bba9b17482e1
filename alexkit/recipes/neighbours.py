"""The images of a feature file that are nearest to another, as the network sees them."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.choices import FeatureDtype
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter
from alexkit.features.neighbours import nearest
from alexkit.features.store import FeatureStore
from alexkit.images.draws import Rows
from alexkit.images.named import open_images
from alexkit.recipes.devices import one_device
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import choose_feature_files
from alexkit.recipes.ledger import Ledger, none_usable
from alexkit.recipes.looking import chosen_layer
from alexkit.recipes.options import NeighboursOptions
from alexkit.recipes.origin import network_of, stored_of
from alexkit.recipes.out_file import RESULT, check_out, write_result
from alexkit.reports.tables import neighbours_rows

Array = npt.NDArray[np.float32]

LEFT_OUT = "no neighbours"


def run(options: NeighboursOptions, report: Reporter) -> dict[str, Any]:
    """Finds the ``options.count`` nearest rows of every image that is named.

    The image goes through the network and the preprocessing that the file was made with.
    The search is exact: every row is compared. ``options.out`` takes the result, as CSV or
    JSON.

    Returns:
        ``file``, ``layer``, ``metric``, ``bad``: images without neighbours, and ``queries``:
        ``path``, ``error`` and ``neighbours``, nearest first, each ``path``, ``class`` or
        None, and ``distance``.

    Raises:
        UsageError: no image is named, or the file was made by no network.
        UnknownName: the file has no such layer.
        DataError: none of the images can be read; the weights or images are gone.
        WeightsMismatch: the weights are not those the file was made with.
        AlexkitError: see :mod:`alexkit.errors`.
    """
    began = time.monotonic()
    if options.query is None:
        raise UsageError("no image was named", hint="type: alexkit neighbours photo.jpg F.h5")
    if options.out is not None:
        check_out(options.out, options.overwrite, options.file, RESULT)
    (file,) = choose_feature_files((options.file,) if options.file else (), report)
    with FeatureStore.open(file) as store:
        layer = chosen_layer(store, options.layer)
        if options.layer is None and len(store.layers) > 1:
            report(Chosen("layer", layer, f"of {', '.join(store.layers)}"))
        ledger = Ledger(None, strict=options.strict, report=report)
        paths, rows, values = _features(store, layer, options, ledger, report)
        ledger.close()
        if not len(rows):
            raise none_usable(len(paths))
        found = nearest(
            values,
            store.rows(),
            lambda some: _one_each(store, store.values(layer, some)),
            options.count,
            metric=options.metric,
        )
        place = {row: at for at, row in enumerate(rows.tolist())}
        reasons = ledger.reasons()
        queries = [
            {
                "path": path,
                "error": None if row in place else reasons.get(path, "no features"),
                "neighbours": [
                    {
                        "path": store.paths[near],
                        "class": store.class_of(near) or None,
                        "distance": far,
                    }
                    for near, far in zip(
                        found.rows[place[row]].tolist() if row in place else [],
                        found.distances[place[row]].tolist() if row in place else [],
                        strict=True,
                    )
                    if near >= 0
                ],
            }
            for row, path in enumerate(paths)
        ]
    result = {
        "file": str(file),
        "layer": layer,
        "metric": options.metric.value,
        "bad": len(paths) - len(rows),
        "queries": queries,
        "seconds": time.monotonic() - began,
    }
    if options.out is not None:
        write_result(options.out, result, neighbours_rows(result), report)
    return result


def _features(
    store: FeatureStore,
    layer: str,
    options: NeighboursOptions,
    ledger: Ledger,
    report: Reporter,
) -> tuple[list[str], Rows, Array]:
    """The paths of all images named; (n) which of them have features; and these, (n, …)."""
    assert options.query is not None
    source = open_images((options.query,), sys.stdin.buffer, report)
    device = one_device(options.device, report)
    backbone = network_of(store, options.weights, report)
    job = Job.of(source, backbone, stored_of(store), device, options, report)
    rows: list[Rows] = []
    values: list[Array] = []
    for batch in job.features(np.arange(len(source)), FeatureDtype.FLOAT32):
        ledger.add_batch(source, batch, LEFT_OUT)
        if len(batch.rows):
            rows.append(batch.rows)
            values.append(_one_each(store, batch.values[layer]))
    paths = [source.record(row).path for row in range(len(source))]
    if not rows:
        return paths, np.empty(0, np.int64), np.empty((0, 1), np.float32)
    return paths, np.concatenate(rows), np.concatenate(values)


def _one_each(store: FeatureStore, values: npt.NDArray[Any]) -> Array:
    """(n, …) float32, the mean over the views where a row holds several."""
    return store.averaged(values).astype(np.float32, copy=False)
