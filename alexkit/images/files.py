"""Images that are files of their own: what a folder and a list become."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alexkit.choices import Split
from alexkit.errors import DataError, UnreadableImage
from alexkit.images.limits import MAX_FILE_BYTES
from alexkit.images.source import LabelledRows

IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".gif", ".webp", ".avif"),
        *(".bmp", ".dib", ".tif", ".tiff", ".jp2", ".j2k", ".jpx", ".pbm", ".pgm", ".ppm"),
        *(".pnm", ".ico", ".pcx", ".sgi", ".heic", ".heif"),
    }
)
"""Endings that say "meant as an image", in lower case; what is inside decides later. HEIC is
among them although it cannot be decoded, so that such images are told of and not just gone."""

SPLIT_WORDS = {
    "train": Split.TRAIN,
    "training": Split.TRAIN,
    "val": Split.VAL,
    "valid": Split.VAL,
    "validation": Split.VAL,
    "test": Split.TEST,
    "testing": Split.TEST,
}
"""Names of splits as people write them, in lower case."""

SPLIT_ORDER = (Split.TRAIN, Split.VAL, Split.TEST, Split.NONE)
"""The order in which the rows of a folder come."""


_HINT = "put the file in its place, or leave it out"


@dataclass(eq=False)
class FileSource(LabelledRows):
    """An :class:`~alexkit.images.source.ImageSource` over files.

    Names on disk are bytes; what :meth:`record`, ``classes`` and ``root`` give is always
    text that UTF-8 can store: see :func:`shown`.

    Attributes:
        place: the root, to which ``paths`` are relative, as the operating system knows it.
        paths: N paths below ``place``, with ``/``, as the operating system knows them.
    """

    place: Path
    paths: tuple[str, ...]

    def path_of(self, row: int) -> str:
        """The path, as text that can be stored."""
        return shown(self.paths[row])

    def read(self, row: int) -> bytes:
        """The file's bytes; safe to call from several threads.

        Raises:
            UnreadableImage: see :func:`read_file`.
        """
        return read_file(self._path(row))

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Path and size of each row: seconds for a million files."""
        for path in self.paths:
            try:
                size = os.stat(os.path.join(self.place, path)).st_size
            except OSError:
                size = -1
            yield path.encode("utf-8", "surrogateescape"), size

    def end(self, row: int, count: int) -> bytes:
        """The last ``count`` bytes of a file, or all of a shorter one.

        Raises:
            UnreadableImage: see :func:`read_file`.
        """
        return read_file(self._path(row), last=count)

    def _path(self, row: int) -> str:
        return os.path.join(self.place, self.paths[row])


def read_file(path: str | Path, *, last: int | None = None) -> bytes:
    """All bytes of a file, or its ``last`` ones.

    Only of a file: a pipe would wait for ever, and some devices have no end.

    Raises:
        UnreadableImage: it is gone, may not be read, is no file, or is larger than
            :data:`~alexkit.images.limits.MAX_FILE_BYTES`.
    """
    try:
        # A pipe that nobody writes to would hold up its opening too.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            return _read(descriptor, last)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise UnreadableImage("the file is missing", hint=_HINT) from error
    except OSError as error:
        raise UnreadableImage(f"cannot be read: {error.strerror}", hint=_HINT) from error


def _read(descriptor: int, last: int | None) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise UnreadableImage("not a file but a pipe, a device or a folder", hint=_HINT)
    size = status.st_size
    if last is None and size > MAX_FILE_BYTES:
        raise UnreadableImage(f"the file has {size / 2**30:.1f} GiB, too many", hint=_HINT)
    with open(descriptor, "rb", buffering=0, closefd=False) as file:
        if last is not None:
            file.seek(max(0, size - last))
        return file.read(-1 if last is None else last)


def cannot_read(path: Path, error: OSError) -> DataError:
    """What a command ends with that may not read a file."""
    return DataError(
        f"cannot read {shown(str(path))}: {error.strerror}",
        hint="give yourself permission to read it",
    )


def names_in(folder: Path) -> list[str]:
    """Sorted names; none where it is no folder or cannot be listed, which others tell."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def path_in(folder: str, name: str) -> str:
    """A path with ``/`` from that of a folder, "" being the root, and a name in it."""
    return f"{folder}/{name}" if folder else name


def is_image_name(name: str) -> bool:
    """Whether a file is named like an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def shown(name: str) -> str:
    r"""A file's name as text for people, HDF5 and JSON.

    Names need not be UTF-8 on Unix; Python then holds lone surrogates, which nothing can
    store. Each such byte is written as ``\xe9``; every other name stays as it is, line
    breaks, commas and quotes included.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def counted(count: int, thing: str, names: Sequence[str] = ()) -> str:
    """``3 classes (a, b, c)`` for a note: the number, the thing, the first few names."""
    plural = thing + ("es" if thing.endswith("s") else "s")
    words = f"{count:,} {thing if count == 1 else plural}"
    if not names:
        return words
    some = ", ".join(repr(shown(name)) for name in names[:3])
    return f"{words} ({some}{', …' if len(names) > 3 else ''})"


def order_notes(classes: Sequence[str]) -> list[str]:
    """Tells where the order of the classes is not the one a person would count in."""
    if not all(name.isascii() and name.isdigit() for name in classes):
        return []
    if list(classes) == sorted(classes, key=int):
        return []
    first = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
    return [f"class names are numbers, sorted as text: {first}; match them by name"]
