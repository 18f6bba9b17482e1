"""How good predictions are; all values are fractions from 0 to 1."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.int64]
Array = npt.NDArray[np.float64]


def predictions(scores: Array) -> Labels:
    """(n) int64, the class of the largest of (n, K) scores; of equal ones the first."""
    return np.asarray(scores.argmax(axis=1), np.int64)


def top_k(scores: Array, labels: Labels, k: int) -> float:
    """The share of rows whose class is among the ``k`` largest of its K scores.

    Of equal scores the earlier class counts as the larger, as in :func:`predictions`, so
    that ``top_k(…, 1)`` is the accuracy of the predictions.

    Args:
        scores: (n, K); minus infinity for a class that cannot be predicted.
        labels: (n), from 0 to K - 1.
        k: with k ≥ K every row counts.
    """
    own = scores[np.arange(labels.size), labels][:, None]
    earlier = np.arange(scores.shape[1])[None, :] < labels[:, None]
    ahead = ((scores > own) | ((scores == own) & earlier)).sum(axis=1)
    return float((ahead < k).mean())


def confusion(labels: Labels, predicted: Labels, classes: int) -> npt.NDArray[np.int64]:
    """(K, K) int64 counts, true class down, predicted class across."""
    counts = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def per_class(table: npt.NDArray[np.int64]) -> Array:
    """(K,) share of each class's rows that were predicted right; NaN for a class without."""
    rows = table.sum(axis=1)
    right = np.diagonal(table)
    return np.where(rows > 0, right / np.maximum(rows, 1), np.nan)


def mean_class_accuracy(table: npt.NDArray[np.int64]) -> float:
    """The mean of :func:`per_class` over the classes that have rows: the papers' measure
    on Caltech-101 (arXiv:1310.1531, arXiv:1311.2901)."""
    return float(np.nanmean(per_class(table)))
