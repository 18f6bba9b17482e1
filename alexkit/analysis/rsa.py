"""Representational similarity: Spearman's correlation of condensed distances, and its interval.

Spearman's ρ is Pearson's r of the ranks, equal distances sharing the mean of theirs. Ranks
are whole numbers when doubled, so (m) distances become (m) uint32, exact up to 65,536 rows.
Of what lies on disk only blocks are read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexkit.analysis.condensed import (
    Array,
    Condensed,
    inner_products,
    normalised,
    pairs,
    slices,
)

Single = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.uint32]
Kept = Condensed | Ranks
"""(m) uint32 doubled ranks, on disk or in memory."""

MOST_ROWS = 65_536
"""Twice the rank of the last pair of more rows does not fit 32 bits."""

GROUP = 2**24
"""Pairs sorted together."""
SLAB_ROWS = 256
INTERVAL = (2.5, 97.5)


def rank(distances: Condensed | Single) -> Ranks:
    """(m) uint32, the doubled ranks, from 2, of (m) float32 distances, none below 0 or NaN.

    Sorted in groups of about :data:`GROUP` by their leading 16 bits: those of a float that is
    not negative order as the float does.
    """
    counts = np.zeros(2**16, np.int64)
    for block in slices(distances.size):
        counts += np.bincount(_keys(distances[block]) >> 16, minlength=2**16)
    before = np.concatenate([[0], np.cumsum(counts)])
    ranks = np.empty(distances.size, np.uint32)
    low = 0
    while low < 2**16:
        high = max(low + 1, int(np.searchsorted(before, before[low] + GROUP, "right")) - 1)
        if before[high] > before[low]:
            _rank_group(distances, ranks, low, high, int(before[low]))
        low = high
    return ranks


def _rank_group(
    distances: Condensed | Single, ranks: Ranks, low: int, high: int, first: int
) -> None:
    """Ranks those whose leading 16 bits lie in [low, high); ``first`` of all are smaller."""
    places, keys = [], []
    for block in slices(distances.size):
        key = _keys(distances[block])
        here = np.flatnonzero((key >> 16 >= low) & (key >> 16 < high))
        places.append(here + block.start)
        keys.append(key[here])
    key, place = np.concatenate(keys), np.concatenate(places)
    order = np.argsort(key)
    key, place = key[order], place[order]
    begins = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    ends = np.append(begins[1:], key.size)
    # Ranks begin + 1 … end, counted from 1: twice their mean is begin + 1 + end.
    doubled = 2 * first + begins + 1 + ends
    ranks[place] = np.repeat(doubled, ends - begins).astype(np.uint32)


def _keys(distances: Single) -> Ranks:
    return (np.asarray(distances) + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0


def spearman(ranked: Sequence[Kept]) -> Array:
    """(L, L) float64 Spearman's ρ of L layers; NaN where all distances of one are equal."""
    return normalised(inner_products(ranked, less=ranked[0].size + 1))


@dataclass(frozen=True)
class Interval:
    """Between what the ρ of each two layers lies in 95 % of the draws: (L, L) float64 each."""

    low: Array
    high: Array


def bootstrap(
    ranked: Sequence[Kept],
    n: int,
    draws: int,
    seed: int,
    advanced: Callable[[int], None] = lambda rows: None,
) -> Interval:
    """The n stimuli drawn again with replacement, ``draws`` times, the same for every layer.

    A pair counts as often as both its stimuli were drawn; a stimulus is not paired with
    itself. Ranks stay those among all stimuli, as ranking again would cost a sort of m
    numbers a draw: what is drawn again is the correlation of these.

    Args:
        advanced: hears how many of the n rows are done.
    """
    rng = np.random.default_rng(seed)
    w = rng.multinomial(n, np.full(n, 1 / n), draws).T.astype(np.float32)
    total = (float(n) ** 2 - np.einsum("nb,nb->b", w, w, dtype=np.float64)) / 2
    scale = np.float32(1 / ranked[0].size)
    count = len(ranked)
    first = np.zeros((count, draws))
    second = np.zeros((count, count, draws))
    for start in range(0, n, SLAB_ROWS):
        stop = min(start + SLAB_ROWS, n)
        z = [_slab(r, n, start, stop) * scale for r in ranked]
        here, after = w[start:stop].astype(np.float64), w[start:]
        for i in range(count):
            first[i] += _weighted(z[i], here, after)
            for j in range(i, count):
                second[i, j] += _weighted(z[i] * z[j], here, after)
        advanced(stop)
    first /= total
    low, high = np.full((count, count), np.nan), np.full((count, count), np.nan)
    own = [second[i, i] / total - first[i] ** 2 for i in range(count)]
    for i in range(count):
        for j in range(i, count):
            with np.errstate(invalid="ignore", divide="ignore"):
                shared = second[i, j] / total - first[i] * first[j]
                rho = shared / np.sqrt(own[i] * own[j])
            if np.isfinite(rho).all():
                low[i, j], high[i, j] = np.percentile(rho, INTERVAL)
                low[j, i], high[j, i] = low[i, j], high[i, j]
    return Interval(low, high)


def _slab(ranked: Kept, n: int, start: int, stop: int) -> Single:
    """Rows [start, stop) of the square matrix, columns from ``start``, with zeros where the
    column is not above the row; centred, float32."""
    first = pairs(n) - pairs(n - start)
    some = ranked[first : pairs(n) - pairs(n - stop)]
    slab = np.zeros((stop - start, n - start), np.float32)
    for row in range(start, stop):
        begin = pairs(n) - pairs(n - row) - first
        values = some[begin : begin + n - 1 - row].astype(np.float64) - (ranked.size + 1)
        slab[row - start, row + 1 - start :] = values
    return slab


def _weighted(z: Single, here: Array, after: Single) -> Array:
    """(draws) Σ wᵢ wⱼ zᵢⱼ over a slab."""
    return np.asarray(np.einsum("ib,ib->b", z @ after, here))
