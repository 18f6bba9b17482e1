"""A file in memory that keeps only what was written to it.

The HDF5 library crashes the process when the disk fills while it writes its structures. So
they are written here first, among gigabytes of values that take no memory, and then to
the disk with plain writes, whose errors are plain.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

H5PY_ERRORS = (
    *(OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError),
)
"""h5py has no exception of its own: a missing name is a KeyError, a truncated file an OSError,
an unknown type a TypeError, a damaged heap a RuntimeError, and so on."""

PAGE = 4096
"""Bytes kept together."""


class HollowFile(io.RawIOBase):
    """Reads as zeros wherever nothing was written."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self._size = 0
        self._at = 0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._at = (
            offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        )
        return self._at

    def truncate(self, size: int | None = None, /) -> int:
        """Sets the size; HDF5 only ever makes a file longer."""
        self._size = self._at if size is None else size
        return self._size

    def readinto(self, buffer: object, /) -> int:
        into = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count = max(0, min(len(into), self._size - self._at))
        done = 0
        while done < count:
            page, start = divmod(self._at + done, PAGE)
            piece = min(PAGE - start, count - done)
            found = self._pages.get(page, bytes(PAGE))
            into[done : done + piece] = found[start : start + piece]
            done += piece
        self._at += count
        return count

    def write(self, data: object, /) -> int:
        given = memoryview(data).cast("B")  # type: ignore[arg-type]
        done = 0
        while done < len(given):
            page, start = divmod(self._at + done, PAGE)
            piece = min(PAGE - start, len(given) - done)
            kept = self._pages.setdefault(page, bytearray(PAGE))
            kept[start : start + piece] = given[done : done + piece]
            done += piece
        self._at += done
        self._size = max(self._size, self._at)
        return done

    def differences(
        self, other: HollowFile
    ) -> Iterator[tuple[int, npt.NDArray[np.bool_], npt.NDArray[np.uint8]]]:
        """The pages of two files that differ, in order: where each begins, which of its
        bytes differ, and the bytes of this file."""
        for page in sorted(self._pages.keys() | other._pages.keys()):
            mine, theirs = (
                np.frombuffer(file._pages.get(page, bytes(PAGE)), np.uint8)
                for file in (self, other)
            )
            if (mine != theirs).any():
                yield page * PAGE, mine != theirs, mine

    def pour(self, raw: BinaryIO) -> None:
        """Writes what it holds to an empty file, at full size; the rest are holes.

        Raises:
            OSError: the disk is full.
        """
        for page, kept in sorted(self._pages.items()):
            raw.seek(page * PAGE)
            raw.write(kept)
        raw.truncate(self._size)
