"""Files that get their name when they are whole: nobody meets half of one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from alexkit.errors import OutOfSpace, OutputExists, UsageError

UNFINISHED = ".partial"
"""Behind the name of a file that is being written."""
MAKE_ROOM = "free some space or choose another --out"
ELSEWHERE = "choose another --out, or let this place be written to"
FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""Where room is no help."""


def partial_path(path: Path) -> Path:
    """Where a file is written until it is whole."""
    return path.with_name(path.name + UNFINISHED)


@contextmanager
def whole_file(
    path: Path, unborn: Path | None = None, *, synced: bool = True
) -> Iterator[BinaryIO]:
    """An empty file to write, which takes the place of ``path`` when the block ends. If that
    fails it goes, and what was there before stays.

    Args:
        unborn: where it is until then; None is :func:`partial_path`.
        synced: bring it to the disk before, so that a power cut leaves the old one or the new.

    Raises:
        OSError: it cannot be written.
    """
    unborn = unborn or partial_path(path)
    try:
        with open(unborn, "w+b") as file:
            yield file
            if synced:
                sync(file)
        os.replace(unborn, path)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what to tell
            unborn.unlink()
        raise


def check_free(path: Path, overwrite: bool) -> None:
    """Sees to it that ``path`` can be a new file, or take the place of an old one.

    Raises:
        UsageError: it is a folder.
        OutputExists: it is there, and is not to be replaced.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="give the name of a file")
    if path.exists() and not overwrite:
        raise OutputExists(f"{path} exists", hint="choose another --out or add --overwrite")


def sync(file: BinaryIO) -> None:
    """Waits until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def writing(
    path: Path,
    hint: str = f"{MAKE_ROOM}; the same command then continues",
    *,
    option: str = "--out",
) -> Iterator[None]:
    """Turns what the system says when a file cannot be written into :class:`OutOfSpace`.

    Args:
        option: the one that names ``path``; it stands in the hint instead of ``--out``.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error).partition("\n")[0]
        hint = ELSEWHERE if error.errno in FORBIDDEN else hint
        hint = hint.replace("--out", option)
        raise OutOfSpace(f"{path} cannot be written: {reason}", hint=hint) from error
