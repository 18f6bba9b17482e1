"""What a layer does over many images: how often its units fire, how long its rows are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.reports.page import Block, Chart, Grid, Series
from alexkit.reports.tables import percent

BINS = 20
MOST_LINES = 8
"""Lines of a chart that can still be told apart."""


@dataclass(frozen=True)
class Activations:
    """One layer over n rows.

    Attributes:
        rows: n.
        shape: of a row.
        mean, std, least, most: over all values.
        zeros: share of the values that are exactly 0.
        silent: units that were 0 in every row; those of a map count one by one.
        units: values of a row.
        length: mean Euclidean length of a row.
        firing: (BINS) share of the units that are positive in 0-5 %, 5-10 % … of the rows.
    """

    rows: int
    shape: tuple[int, ...]
    mean: float
    std: float
    least: float
    most: float
    zeros: float
    silent: int
    units: int
    length: float
    firing: tuple[float, ...]


def activations(values: npt.NDArray[Any]) -> Activations:
    """Of (n, …) features of a layer, n at least 1."""
    x = np.asarray(values, np.float32).reshape(len(values), -1)
    fires = (x > 0).mean(axis=0)
    counts, _ = np.histogram(fires, bins=BINS, range=(0, 1))
    return Activations(
        rows=len(x),
        shape=tuple(values.shape[1:]),
        mean=float(x.mean(dtype=np.float64)),
        std=float(x.std(dtype=np.float64)),
        least=float(x.min()),
        most=float(x.max()),
        zeros=float((x == 0).mean()),
        silent=int((x == 0).all(axis=0).sum()),
        units=x.shape[1],
        length=float(np.sqrt(np.einsum("nd,nd->n", x, x, dtype=np.float64)).mean()),
        firing=tuple((counts / x.shape[1]).tolist()),
    )


def activation_blocks(layers: Mapping[str, Activations]) -> list[Block]:
    """A table of all layers, and how often units are positive in each of the first few."""
    if not layers:
        return []
    header = [
        *("layer", "shape of a row", "rows", "mean", "deviation", "least", "most", "zeros"),
        *("silent units", "mean length"),
    ]
    rows = [
        [
            name,
            " × ".join(map(str, a.shape)),
            str(a.rows),
            *(f"{value:.4g}" for value in (a.mean, a.std, a.least, a.most)),
            percent(a.zeros),
            f"{a.silent:,} of {a.units:,}",
            f"{a.length:.4g}",
        ]
        for name, a in layers.items()
    ]
    middles = [100 * (i + 0.5) / BINS for i in range(BINS)]
    some = list(layers.items())[:MOST_LINES]
    told = [
        [
            f"{100 * i / BINS:g}–{100 * (i + 1) / BINS:g} %",
            *(percent(a.firing[i]) for _, a in some),
        ]
        for i in range(BINS)
    ]
    chart = Chart(
        "How many units are positive in how many images",
        "images in which a unit is positive (%)",
        "share of the units",
        [Series(name, middles, a.firing) for name, a in some],
        (["images", *(name for name, _ in some)], told),
        percent=True,
    )
    return [Grid((header, rows), "Values of each layer"), chart]
