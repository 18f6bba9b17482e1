"""One number a pair of rows, on disk: what is kept of a layer while layers are compared.

Condensed as ``scipy.spatial.distance.pdist`` has it: the pairs (0, 1), (0, 2), …, (0, n-1),
(1, 2), … A file is read and written, not mapped: mapped pages would count as memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


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
