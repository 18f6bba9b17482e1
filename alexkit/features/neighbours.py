"""Exact nearest neighbours, read in blocks: memory for one block, however many rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.choices import Metric

Rows = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]
Read = Callable[[Rows], npt.NDArray[Any]]
"""Some rows into (n, …) values of any float type; flattened here."""

BLOCK_VALUES = 1 << 22
"""Values of a block, 32 MB in float64."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest rows of each of q queries, nearest first; of equals the earlier row.

    Attributes:
        rows: (q, k) int64, as numbered by whoever asked; -1 where there are fewer than k.
        distances: (q, k) float64; infinity where there are fewer than k.
    """

    rows: Rows
    distances: Array


def nearest(
    queries: npt.NDArray[Any],
    rows: Rows,
    read: Read,
    k: int,
    *,
    metric: Metric = Metric.EUCLIDEAN,
    skip: Rows | None = None,
) -> Neighbours:
    """Searches all of ``rows``; nothing is approximate.

    Args:
        queries: (q, …), flattened.
        rows: (n) the numbers of the rows to search.
        read: gives the values of some of them.
        k: at least 1.
        metric: ``euclidean``; ``cosine``, 1 - cos of the angle; ``correlation``, 1 - Pearson's
            r over the values of a row. With the last two a constant or zero row is at
            distance 1 from every other.
        skip: (q) the row that each query is itself, left out of its neighbours; -1 for none.
    """
    q = _prepared(queries, metric)
    count = len(q)
    itself = np.full(count, -1, np.int64) if skip is None else skip
    found = np.full((count, 0), -1, np.int64)
    distances = np.empty((count, 0))
    rows = np.sort(rows)
    step = max(1, BLOCK_VALUES // max(q.shape[1], 1))
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        x = _prepared(read(some), metric)
        square, error = _squared(q, x)
        square[some[None, :] == itself[:, None]] = np.inf
        each = [
            _nearest_of(q[i], x, square[i], error[i], min(k, len(some)), metric)
            for i in range(count)
        ]
        found = np.concatenate([found, some[np.stack([near for near, _ in each])]], axis=1)
        distances = np.concatenate([distances, np.stack([far for _, far in each])], axis=1)
        order = np.lexsort((found, distances), axis=1)[:, :k]
        found = np.take_along_axis(found, order, axis=1)
        distances = np.take_along_axis(distances, order, axis=1)
    short = k - found.shape[1]
    if short > 0:
        found = np.pad(found, ((0, 0), (0, short)), constant_values=-1)
        distances = np.pad(distances, ((0, 0), (0, short)), constant_values=np.inf)
    return Neighbours(np.where(np.isinf(distances), -1, found), distances)


def _prepared(values: npt.NDArray[Any], metric: Metric) -> Array:
    """Rows in float64; of length 1 where only the angle counts, and centred for correlation."""
    x = np.asarray(values, np.float64).reshape(len(values), -1)
    if metric is Metric.EUCLIDEAN:
        return x
    if metric is Metric.CORRELATION:
        x = x - x.mean(axis=1, keepdims=True)
    length = np.linalg.norm(x, axis=1, keepdims=True)
    return np.where(length > 0, x / np.where(length > 0, length, 1), 0.0)


def _squared(q: Array, x: Array) -> tuple[Array, Array]:
    """(q, n) squared Euclidean distances by one matrix product, and how far off they may be."""
    xx, qq = (x**2).sum(axis=1)[None, :], (q**2).sum(axis=1)[:, None]
    # Higham, Accuracy and Stability of Numerical Algorithms, §3.1: a sum of d products.
    error = (x.shape[1] + 4) * np.finfo(np.float64).eps * (np.sqrt(xx) + np.sqrt(qq)) ** 2
    return xx - 2 * (q @ x.T) + qq, error


def _nearest_of(
    q: Array, x: Array, square: Array, error: Array, k: int, metric: Metric
) -> tuple[Rows, Array]:
    """Places in ``x`` and distances of the k nearest: all that the product cannot rule out are
    measured by their differences."""
    most = np.partition(square + error, k - 1)[k - 1]
    near = np.flatnonzero(square - error <= most)
    far = _distance(q, x[near], metric)
    far[np.isinf(square[near])] = np.inf
    first = np.argsort(far, kind="stable")[:k]
    return near[first], far[first]


def _distance(q: Array, x: Array, metric: Metric) -> Array:
    """(n) distances of one query, from the differences themselves."""
    squared: Array = ((x - q) ** 2).sum(axis=1)
    if metric is Metric.EUCLIDEAN:
        return np.sqrt(squared)
    # For vectors of length 1; a zero vector has no angle, and counts as at right angles.
    nothing = ~x.any(axis=1) | ~q.any()
    return np.where(nothing, 1.0, squared / 2)
