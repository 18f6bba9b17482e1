"""Images named one by one: files, folders, patterns, and a list from stdin."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.events import Reporter, silent
from alexkit.images.files import IMAGE_SUFFIXES, FileSource, shown
from alexkit.images.folder import every_image
from alexkit.images.listing import LIST_SUFFIXES, open_list
from alexkit.images.opening import open_source
from alexkit.images.source import NO_LABEL, SPLITS, ImageSource

STDIN = "-"
_PATTERN = frozenset("*?[")


def open_images(
    arguments: Sequence[str], stdin: BinaryIO, report: Reporter = silent
) -> ImageSource:
    """The images that are named, in that order, those of a folder sorted by code point.

    A file is an image whatever its name; one that is missing, but is named like an image,
    stays a row whose ``read`` says so. A folder is all images at any depth below it, a
    pattern (``"photos/*.jpg"``, ``**`` for any depth) what it matches, a list (``.csv``,
    ``.txt``) the files in it, ``-`` the paths on stdin, one a line, or with zero bytes
    between them as ``find -print0`` writes. An archive, a pack or a data set stands alone.

    Args:
        arguments: at least one.
        stdin: read where an argument is ``-``.
        report: see :func:`alexkit.images.opening.open_source`.

    Raises:
        DataError: nothing is there, or no image is named.
    """
    if len(arguments) == 1 and _is_data(arguments[0]):
        return open_source(Path(arguments[0]), report)
    notes: list[str] = []
    paths = [path for name in arguments for path in _paths(name, stdin, notes)]
    if not paths:
        raise DataError("no image was named", hint="type: alexkit predict photo.jpg")
    return FileSource(
        kind="files",
        root=shown(os.getcwd()),
        classes=(),
        labels=np.full(len(paths), NO_LABEL, np.int32),
        splits=np.full(len(paths), SPLITS.index(Split.NONE), np.uint8),
        notes=tuple(notes),
        place=Path(os.getcwd()),
        paths=tuple(paths),
    )


def _is_data(name: str) -> bool:
    """Whether it is an archive or the like, which no other argument can stand beside."""
    path = Path(name)
    if path.is_dir():
        return not every_image(path)[0]
    suffix = path.suffix.lower()
    return path.is_file() and suffix in (".tar", ".pack", ".parquet")


def _paths(name: str, stdin: BinaryIO, notes: list[str]) -> Iterator[str]:
    if name == STDIN:
        for line in _lines(stdin.read()):
            yield from _named(line, notes)
    elif os.path.lexists(name) or not _PATTERN & set(name):
        yield from _named(name, notes)
    else:
        found = sorted(glob.glob(name, recursive=True))
        if not found:
            raise DataError(f"nothing matches {shown(name)}", hint="look at the pattern")
        for one in found:
            yield from _named(one, notes)


def _lines(data: bytes) -> list[str]:
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    return [os.fsdecode(line) for line in lines if line.strip()]


def _named(name: str, notes: list[str]) -> list[str]:
    path = Path(name)
    if path.is_dir():
        inside, told = every_image(path)
        notes += told
        if not inside:
            raise DataError(
                f"there is no image in {shown(name)}", hint="name a folder that holds images"
            )
        return [os.path.join(name, one) for one in inside]
    suffix = path.suffix.lower()
    if suffix in LIST_SUFFIXES and path.is_file():
        listed = open_list(path)
        notes += listed.notes
        return [os.path.join(listed.place, one) for one in listed.paths]
    if suffix not in IMAGE_SUFFIXES and not _is_file(path):
        raise DataError(
            f"there is no {shown(name)}", hint="name files, folders or patterns of images"
        )
    return [name]


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False
