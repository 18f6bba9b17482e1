"""Rows of features as the probes take them: by index, in blocks, in fewer coordinates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alexkit.errors import DataError
from alexkit.probes.cores import blocks_of
from alexkit.probes.norms import FittedNorm, Norm
from alexkit.probes.protocols import ProtocolRecord

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

BLOCK_BYTES = 128 << 20
"""Of rows in float64 that are worked on at a time."""
READ_BYTES = 512 << 20
"""Of rows of a file that are multiplied by others of it."""
COLUMNS = 4096
"""Of rows that are multiplied at a time."""
JITTER = 1e-11
"""What ‖x‖² of each row is raised by, because rows may depend on one another: far below what
a float32 feature's own rounding does to it (6e-8)."""


class Features(Protocol):
    """(n, d) rows read by index: a numpy array, or a layer that stays in its file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: Indices | slice, /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True)
class Part:
    """Some rows, normalised as they are read; what the SVM's solver takes.

    Attributes:
        x: (n, d).
        rows: (m) indices into ``x``.
    """

    x: Features
    rows: Indices
    norm: FittedNorm

    @classmethod
    def fitted(cls, x: Features, rows: Indices, record: ProtocolRecord) -> Part:
        """With what the protocol's normalisation takes from these very rows."""
        norm = Norm.parse(record.norm, offset=record.offset)
        if norm.kind in ("standardize", "pca"):
            return cls(x, rows, norm.fit(x[rows]))
        return cls(x, rows, FittedNorm(norm))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, numbers a row after normalisation)."""
        width = len(self.norm.axes) if self.norm.norm.kind == "pca" else self.x.shape[1]
        return self.rows.size, width

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Rows in float64, or as they are where nothing is done to them."""
        some = self.x[self.rows[rows]]
        return some if self.norm.norm.kind == "none" else self.norm(some)


def blocks(n: int, d: int, nbytes: int | None = None) -> list[slice]:
    """All of (n, d) rows, as many at a time as take ``nbytes`` in float64, by default
    :data:`BLOCK_BYTES`."""
    return blocks_of(n, max(1, (nbytes or BLOCK_BYTES) // (8 * d)))


def inner_products(x: Features) -> Array:
    """(n, n) float64 X Xᵀ; of a layer in a file two blocks of rows are in memory at a time."""
    if isinstance(x, np.ndarray):
        return _products(x, x)
    n, d = x.shape
    gram = np.empty((n, n))
    for rows in blocks(n, d, 2 * READ_BYTES):
        one = x[rows]
        gram[rows, rows] = _products(one, one)
        for others in blocks(rows.start, d, 2 * READ_BYTES):
            gram[rows, others] = _products(one, x[others])
            gram[others, rows] = gram[rows, others].T
    return gram


def _products(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> Array:
    """(n, m) float64 inner products, some columns at a time: that is in float64 only what a
    core's cache takes, and six times as fast as a few very long rows."""
    total = np.zeros((len(one), len(other)))
    for begin in range(0, one.shape[1], COLUMNS):
        part = slice(begin, begin + COLUMNS)
        a = np.ascontiguousarray(one[:, part], np.float64)
        b = a if other is one else np.ascontiguousarray(other[:, part], np.float64)
        total += a @ b.T
    return total


def coordinates(gram: Array) -> Array:
    """(n, n) rows whose inner products are these: whatever looks at inner products alone finds
    in them what it finds in rows of any length. Nothing is fitted: it is a rotation."""
    square, zero = np.diagonal(gram), np.diagonal(gram) == 0
    lifted = gram.copy()
    np.fill_diagonal(lifted, np.where(zero, 1.0, square * (1 + JITTER)))
    rows = np.asarray(np.linalg.cholesky(lifted), np.float64)
    rows[zero] = 0.0
    return rows


def row_keys(x: Features) -> tuple[Indices, Indices]:
    """(n) the first row that is equal to each, number for number; and rows that are not all
    finite."""
    n, d = x.shape
    first: dict[bytes, int] = {}
    keys, broken = np.empty(n, np.int64), []
    for rows in blocks(n, d):
        part = np.ascontiguousarray(x[rows])
        broken.append(rows.start + np.flatnonzero(~np.isfinite(part).all(axis=1)))
        for row, values in enumerate(part, rows.start):
            digest = hashlib.blake2b(values.data, digest_size=16).digest()
            keys[row] = first.setdefault(digest, row)
    return keys, np.concatenate(broken) if broken else np.empty(0, np.int64)


def mean_square(x: Part | Array) -> float:
    """The mean of ‖x‖² over (m, d) rows.

    Raises:
        DataError: every row is zero.
    """
    n, d = x.shape
    total = 0.0
    for rows in blocks(n, d):
        total += float(np.square(x[rows], dtype=np.float64).sum())
    if total == 0.0:
        raise DataError(
            "the features of all training rows are zero",
            hint="look at another layer, or at how these features were made",
        )
    return float(total / n)
