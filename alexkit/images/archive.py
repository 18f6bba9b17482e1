"""Images that lie inside tar archives, read in place."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.errors import UnreadableImage
from alexkit.images.files import IMAGE_SUFFIXES, shown
from alexkit.images.limits import MAX_FILE_BYTES
from alexkit.images.source import LabelledRows, located
from alexkit.images.tars import TarIndex

_OPEN_AT_MOST = 128
"""Archives kept open at once; a process may have as few as 1,024 files open in all."""

_HINT = "put the archive back as it was, or start again with the one that is there"


@dataclass(frozen=True, eq=False)
class Part:
    """The images taken from one archive.

    Attributes:
        place: the archive.
        prefix: what stands before the paths inside it, e.g. ``"train/"``.
        index: its index.
        rows: (n) int64, the index's rows that are images, in the order wanted.
    """

    place: Path
    prefix: str
    index: TarIndex
    rows: npt.NDArray[np.int64]


@dataclass(eq=False)
class ArchiveSource(LabelledRows):
    """An :class:`~alexkit.images.source.ImageSource` over tar archives, never unpacked.

    About 50 bytes a row and its path: 100 MB for ImageNet. :meth:`read` is one ``pread``.

    Attributes:
        parts: the archives, in the order of the rows.
    """

    parts: tuple[Part, ...]
    _ends: npt.NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._ends = np.cumsum([len(part.rows) for part in self.parts])
        assert len(self.labels) == len(self.splits) == self._ends[-1]
        self._open()

    def path_of(self, row: int) -> str:
        """The path in the archive, behind the part's prefix."""
        part, at = self._at(row)
        return part.prefix + shown(os.fsdecode(part.index.path(at)))

    def read(self, row: int) -> bytes:
        """The image's bytes; safe to call from several threads and after a fork.

        Raises:
            UnreadableImage: the archive is gone or has become shorter, or the image is
                larger than :data:`~alexkit.images.limits.MAX_FILE_BYTES`.
        """
        part, at = self._at(row)
        size = int(part.index.sizes[at])
        if size > MAX_FILE_BYTES:
            raise UnreadableImage(
                f"the file has {size / 2**30:.1f} GiB, too many", hint="leave it out"
            )
        return self._bytes(part, size, int(part.index.offsets[at]))

    def end(self, row: int, count: int) -> bytes:
        """The last ``count`` bytes of an image, or all of a shorter one.

        Raises:
            UnreadableImage: as :meth:`read`.
        """
        part, at = self._at(row)
        size = int(part.index.sizes[at])
        count = min(count, size)
        return self._bytes(part, count, int(part.index.offsets[at]) + size - count)

    def _bytes(self, part: Part, size: int, offset: int) -> bytes:
        try:
            data = self._read(part.place, size, offset)
        except FileNotFoundError as error:
            raise UnreadableImage(f"{part.place.name} is missing", hint=_HINT) from error
        except OSError as error:
            raise UnreadableImage(
                f"{part.place.name} cannot be read: {error.strerror}", hint=_HINT
            ) from error
        if len(data) != size:
            raise UnreadableImage(f"{part.place.name} has become shorter", hint=_HINT)
        return data

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Path and size of each row, as if they were unpacked."""
        for part in self.parts:
            prefix = part.prefix.encode("utf-8", "surrogateescape")
            sizes = part.index.sizes[part.rows].tolist()
            for at, size in zip(part.rows.tolist(), sizes, strict=True):
                yield prefix + part.index.path(at), size

    def _at(self, row: int) -> tuple[Part, int]:
        which, at = located(self._ends, row)
        return self.parts[which], int(self.parts[which].rows[at])

    def _open(self) -> None:
        self._files: dict[Path, int] = {}
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._files)

    def _read(self, place: Path, size: int, offset: int) -> bytes:
        file = self._files.get(place)
        if file is None:
            opened = os.open(place, os.O_RDONLY)
            with self._lock:
                if len(self._files) < _OPEN_AT_MOST:
                    file = self._files.setdefault(place, opened)
            if file != opened:  # another thread was faster, or there are too many
                try:
                    return os.pread(opened, size, offset)
                finally:
                    os.close(opened)
        return os.pread(file, size, offset)

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens the archives itself."""
        return {k: v for k, v in self.__dict__.items() if k not in ("_files", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def is_image_suffix(suffix: str) -> bool:
    """Whether a name that goes on with ``.suffix`` after its first dot is an image's."""
    return "." + suffix.rpartition(".")[2] in IMAGE_SUFFIXES


def image_rows(index: TarIndex) -> npt.NDArray[np.int64]:
    """(n) int64, the rows of an index that are named like images."""
    wanted = np.array([is_image_suffix(suffix) for suffix in index.suffix_names()], bool)
    return np.flatnonzero(wanted[index.suffix]) if len(index) else np.zeros(0, np.int64)


def joined_splits(parts: Sequence[Part], codes: Sequence[int]) -> npt.NDArray[np.uint8]:
    """(N) uint8: one split code for each part, repeated for its rows."""
    return np.repeat(np.array(codes, np.uint8), [len(part.rows) for part in parts])


def _close(files: dict[Path, int]) -> None:
    for file in files.values():
        os.close(file)
    files.clear()
