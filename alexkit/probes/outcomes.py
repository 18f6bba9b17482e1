"""What became of each row over all splits of a layer: the rows a probe finds hard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from alexkit.probes.protocol import SplitResult

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def margins(scores: Array, labels: Labels) -> Array:
    """(n) score of the row's own class less the best score of another; negative where wrong.

    Args:
        scores: (n, K); minus infinity for a class that cannot be predicted.
        labels: (n), from 0 to K - 1.
    """
    every = np.arange(labels.size)
    own = scores[every, labels]
    others = scores.copy()
    others[every, labels] = -np.inf
    best = others.max(axis=1)
    # Both are minus infinity where a class without training rows meets a lone other one.
    return np.where(np.isneginf(own), -np.inf, own - best)


@dataclass(frozen=True)
class Outcomes:
    """All rows of a layer.

    Attributes:
        tested: (n) in how many splits the row was a test row.
        right: (n) in how many of these its class was predicted.
        margin: (n) mean of :func:`margins` over these; NaN for a row never tested.
        predicted: (n) the class predicted where its margin was least; -1 if never tested.
        first: (n) 1 where the first split that tested the row had its class right, 0 where
            not; -1 if never tested.
    """

    tested: Labels
    right: Labels
    margin: Array
    predicted: Labels
    first: Labels


def outcomes(splits: Sequence[SplitResult], n: int) -> Outcomes | None:
    """Gathers the splits; None where rows may have several classes."""
    tested, right, predicted = np.zeros(n, np.int64), np.zeros(n, np.int64), np.full(n, -1)
    total, least, first = np.zeros(n), np.full(n, np.inf), np.full(n, -1)
    for split in splits:
        if split.predicted is None or split.margin is None or split.right is None:
            return None
        rows = split.division.test
        first[rows] = np.where(tested[rows] > 0, first[rows], split.right)
        tested[rows] += 1
        right[rows] += split.right
        total[rows] += split.margin
        news = (split.margin < least[rows]) | (predicted[rows] < 0)
        predicted[rows[news]] = split.predicted[news]
        least[rows] = np.minimum(least[rows], split.margin)
    margin = np.where(tested > 0, total / np.maximum(tested, 1), np.nan)
    return Outcomes(tested, right, margin, predicted, first)
