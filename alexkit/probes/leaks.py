"""Test rows that a training row gives away.

Two rows are *identical* where all their numbers are equal, and *near* where they are not but
the cosine between them, before any normalisation, is at least :data:`NEAR`. A row of zeros
is near nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexkit.probes.rows import BLOCK_BYTES, Features
from alexkit.probes.splits import Division, Rows

NEAR = 0.999
BLOCK = 4096
"""Rows compared at a time, at most."""


@dataclass(frozen=True)
class Leaks:
    """What was found, over all splits.

    Attributes:
        identical: test rows, ascending, that equal a training row of the same split.
        near: further ones that are near one.
        pairs: (identical + near, 2) each of those rows, and the training row it is nearest to.
    """

    identical: Rows
    near: Rows
    pairs: Rows


def find_leaks(x: Features, divisions: Sequence[Division], *, keys: Rows) -> Leaks:
    """Compares every test row of every split with all its training rows, in blocks.

    Args:
        x: (n, d), or any coordinates with the same inner products.
        keys: (n) a number for each row, the same for identical rows only.
    """
    found: dict[int, tuple[bool, int]] = {}
    for part in divisions:
        first: dict[int, int] = {}
        for row in part.train.tolist():
            first.setdefault(int(keys[row]), row)
        for row in part.test.tolist():
            if int(keys[row]) in first:
                found[row] = (True, first[int(keys[row])])
        left = np.array([row for row in part.test.tolist() if row not in found], np.int64)
        for row, other in _near(x, left, part.train):
            found[row] = (False, other)
    order = sorted(found)
    return Leaks(
        identical=np.array([row for row in order if found[row][0]], np.int64),
        near=np.array([row for row in order if not found[row][0]], np.int64),
        pairs=np.array([(row, found[row][1]) for row in order], np.int64).reshape(-1, 2),
    )


def _near(x: Features, test: Rows, train: Rows) -> Iterator[tuple[int, int]]:
    """Those of the test rows that are near a training row, and the nearest."""
    step = min(BLOCK, max(1, BLOCK_BYTES // (8 * x.shape[1])))
    for begin in range(0, test.size, step):
        some = test[begin : begin + step]
        one = unit_rows(x[some])
        best, nearest = np.full(some.size, -1.0), np.zeros(some.size, np.int64)
        for start in range(0, train.size, step):
            others = train[start : start + step]
            cosine = one @ unit_rows(x[others]).T
            at = cosine.argmax(axis=1)
            value = cosine[np.arange(some.size), at]
            nearest = np.where(value > best, others[at], nearest)
            best = np.maximum(best, value)
        for row, other in zip(some[best >= NEAR], nearest[best >= NEAR], strict=True):
            yield int(row), int(other)


def unit_rows(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Rows of length 1, in float32 at least; of zeros stay."""
    wide = rows.astype(np.promote_types(rows.dtype, np.float32), copy=False)
    length = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.asarray(wide / np.where(length > 0, length, 1))
