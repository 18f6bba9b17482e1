"""How sure a score is, and whether one is really above another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Labels = npt.NDArray[np.int64]
Right = npt.NDArray[np.bool_]

RESAMPLES = 1000
"""Of the test rows, for an interval."""
COVERAGE = 0.95
"""Of the interval."""


@dataclass(frozen=True)
class Paired:
    """Two probes on the same test rows.

    Attributes:
        first_only, second_only: rows that only the one, or only the other, had right.
        p: of McNemar's test, exact and two-sided: how often a fair coin thrown
            ``first_only + second_only`` times falls at least as unevenly.
    """

    first_only: int
    second_only: int
    p: float


def mcnemar(first: Right, second: Right) -> Paired:
    """Compares (n) rows that were right or not; the binomial test, no approximation."""
    a, b = int((first & ~second).sum()), int((second & ~first).sum())
    return Paired(a, b, float(binomtest(a, a + b).pvalue) if a + b else 1.0)


def bootstrap(right: Right, y: Labels, seed: int) -> dict[str, tuple[float, float]]:
    """Percentile intervals from test rows drawn again with replacement.

    Args:
        right: (n) whether the row's class was predicted.
        y: (n) its class.
        seed: the same gives the same interval.

    Returns:
        ``accuracy`` and ``mean_class_accuracy``: the two ends; :data:`COVERAGE` between them.
    """
    rng = np.random.default_rng(seed)
    accuracy, by_class = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for turn in range(RESAMPLES):
        drawn = rng.integers(0, y.size, y.size)
        rows = np.bincount(y[drawn])
        hits = np.bincount(y[drawn], weights=right[drawn])
        accuracy[turn] = hits.sum() / y.size
        by_class[turn] = (hits[rows > 0] / rows[rows > 0]).mean()
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    low, high = np.quantile(accuracy, ends)
    low_by_class, high_by_class = np.quantile(by_class, ends)
    return {
        "accuracy": (float(low), float(high)),
        "mean_class_accuracy": (float(low_by_class), float(high_by_class)),
    }
