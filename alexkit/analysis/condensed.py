"""One number a pair of rows, on disk: what is kept of a layer while layers are compared.

Condensed as ``scipy.spatial.distance.pdist`` has it: the pairs (0, 1), (0, 2), …, (0, n-1),
(1, 2), … A file is read and written, not mapped: mapped pages would count as memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

BLOCK = 2**20
"""Pairs looked at together."""


def pairs(n: int) -> int:
    """How many pairs n rows have."""
    return n * (n - 1) // 2


@dataclass(frozen=True)
class Condensed:
    """(m) numbers in a file, of which slices are read.

    Attributes:
        path: the numbers as they are in memory, and nothing else.
        dtype: their type.
        size: m.
    """

    path: Path
    dtype: np.dtype[Any]
    size: int

    @classmethod
    def written(
        cls, path: Path, dtype: npt.DTypeLike, pieces: Iterable[npt.NDArray[Any]]
    ) -> Condensed:
        """A new file of all pieces, one after the other."""
        size, kind = 0, np.dtype(dtype)
        with path.open("wb") as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, kind).data)
                size += piece.size
        return cls(path, kind, size)

    def __getitem__(self, part: slice) -> npt.NDArray[Any]:
        """A slice without a step, (k)."""
        start, stop, step = part.indices(self.size)
        assert step == 1
        return np.fromfile(
            self.path, self.dtype, max(0, stop - start), offset=start * self.dtype.itemsize
        )


def slices(size: int) -> Iterator[slice]:
    """All of ``size`` pairs, :data:`BLOCK` at a time."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


def inner_products(kept: Sequence[Condensed | npt.NDArray[Any]], less: float = 0.0) -> Array:
    """(L, L) float64, of L times (m) numbers from each of which ``less`` is taken."""
    products = np.zeros((len(kept), len(kept)))
    for part in slices(kept[0].size):
        z = np.stack([numbers[part] for numbers in kept]).astype(np.float64) - less
        products += z @ z.T
    return products


def normalised(products: Array) -> Array:
    """Divides by the roots of the diagonal; rows where it is not positive become NaN."""
    own = np.diagonal(products)
    length = np.sqrt(np.where(own > 0, own, np.nan))
    return np.asarray(products / length[:, None] / length[None, :])
