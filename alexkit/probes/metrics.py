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


def most_confused(table: npt.NDArray[np.int64], most: int) -> list[tuple[int, int, int]]:
    """True class, predicted class and rows of cells off the diagonal, the most rows first."""
    off = table.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    cells = [divmod(int(cell), len(table)) for cell in order]
    return [(true, taken, int(off[true, taken])) for true, taken in cells if off[true, taken]]


def per_class(table: npt.NDArray[np.int64]) -> Array:
    """(K,) share of each class's rows that were predicted right; NaN for a class without."""
    rows = table.sum(axis=1)
    right = np.diagonal(table)
    return np.where(rows > 0, right / np.maximum(rows, 1), np.nan)


def mean_class_accuracy(table: npt.NDArray[np.int64]) -> float:
    """The mean of :func:`per_class` over the classes that have rows: the papers' measure
    on Caltech-101 (arXiv:1310.1531, arXiv:1311.2901)."""
    return float(np.nanmean(per_class(table)))


CALIBRATION_BINS = 15
"""Guo et al. 2017 (arXiv:1706.04599, §2 and table 1)."""


def calibration(
    confidence: Array, right: npt.NDArray[np.bool_]
) -> tuple[float, list[dict[str, float]]]:
    """How far confidence is from accuracy: the expected calibration error of Guo et al. 2017
    (arXiv:1706.04599, equation 3).

    Args:
        confidence: (n) largest probability of each row.
        right: (n) whether its class was the true one.

    Returns:
        The mean over rows of |accuracy - confidence| of their bin; and the bins from low to
        high, of equal width: ``above`` and ``to``, the larger within, ``n``, mean
        ``confidence`` and ``accuracy``, NaN-free: 0 where ``n`` is.
    """
    bins = CALIBRATION_BINS
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    told, error = [], 0.0
    for at in range(bins):
        mine = place == at
        n = int(mine.sum())
        sure = float(confidence[mine].mean()) if n else 0.0
        accuracy = float(right[mine].mean()) if n else 0.0
        error += n * abs(accuracy - sure)
        told.append(
            {
                "above": at / bins,
                "to": (at + 1) / bins,
                "n": n,
                "confidence": sure,
                "accuracy": accuracy,
            }
        )
    return error / max(len(confidence), 1), told


def area_ap(scores: Array, present: npt.NDArray[np.bool_]) -> float:
    """Average precision as VOC has it since 2010, and VISSL: the area under the precision
    that is made to fall with recall (``calculate_ap`` in VISSL and FAIR's benchmark).

    Args:
        scores: (n) of one class. Rows of equal score come in together.
        present: (n) whether the row has the class.

    Returns:
        NaN where no row has the class.
    """
    recall, precision = _ranked(scores, present)
    if not recall.size:
        return float("nan")
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def eleven_point_ap(scores: Array, present: npt.NDArray[np.bool_]) -> float:
    """Average precision of VOC 2007: the mean, over recalls 0, 0.1 … 1, of the best precision
    at that recall or a larger one. Arguments as in :func:`area_ap`."""
    recall, precision = _ranked(scores, present)
    if not recall.size:
        return float("nan")
    # Recalls are counts by a count: 3 / 10 must not fall short of the third point.
    at = np.searchsorted(recall, np.arange(11) / 10 - 1e-9)
    return float(precision[at].mean())


def _ranked(scores: Array, present: npt.NDArray[np.bool_]) -> tuple[Array, Array]:
    """Recall, ascending to 1, and the best precision there or further; empty for no row."""
    total = int(present.sum())
    if not total:
        return np.empty(0), np.empty(0)
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    found = np.cumsum(present[order])[last]
    precision = found / (last + 1)
    return found / total, np.maximum.accumulate(precision[::-1])[::-1]
