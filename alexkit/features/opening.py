"""The door to an HDF5 file that may be in use, damaged or no HDF5 at all."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from alexkit.errors import DamagedFile, DataError, UsageError
from alexkit.features.seal import seal_holds
from alexkit.images.hollow import H5PY_ERRORS
from alexkit.whole_file import UNFINISHED, partial_path

NO_LOCK = "unable to lock file"
"""In what HDF5 says (``H5FDsec2.c``) when ``flock`` fails; the errno tells why."""


def opened(path: Path, mode: str) -> h5py.File:
    """Opens an HDF5 file that should be there, and locks it where the file system can.

    Where it cannot (NFS without its lock daemon, say), a file is read without a lock: a
    finished file never changes, and in an unfinished one a row says when it is whole.

    Raises:
        DataError: there is no such file, or it is not ours to read.
        UsageError: another process has it open for writing, or it is to be written and
            cannot be locked.
        DamagedFile: it is not as it was sealed.
    """
    try:
        if not path.name.endswith(UNFINISHED) and seal_holds(path) is False:
            refuse_if_locked(path)
            raise damaged(path, "is truncated or damaged: its tables are not as written")
        try:
            return h5py.File(path, mode, locking="best-effort")
        except OSError as error:
            if mode != "r" or isinstance(error, BlockingIOError) or NO_LOCK not in str(error):
                raise
            return h5py.File(path, mode, locking=False)
    except FileNotFoundError:
        unfinished = partial_path(path)
        hint = (
            f"{unfinished} is unfinished; the command that began it continues it"
            if unfinished.exists()
            else "`alexkit features DATA` makes feature files"
        )
        raise DataError(f"there is no file {path}", hint=hint) from None
    except BlockingIOError:
        raise _in_use(path) from None
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(
            f"{path} cannot be opened: {os.strerror(error.errno or 0)}",
            hint="give the name of a feature file that you may read",
        ) from None
    except OSError as error:
        if NO_LOCK in str(error):
            raise UsageError(
                f"{path} cannot be locked by its file system",
                hint="set HDF5_USE_FILE_LOCKING=FALSE if no other process uses the file",
            ) from None
        raise


def refuse_if_locked(path: Path) -> None:
    """A file that is open for writing is changed by HDF5 before anything is written.

    Raises:
        UsageError: another process has it locked.
        OSError: it cannot be read.
    """
    with path.open("rb") as raw:
        try:
            fcntl.flock(raw, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _in_use(path) from None
        except OSError:  # a file system without locks
            return


def _in_use(path: Path) -> UsageError:
    return UsageError(
        f"{path} is in use by another process", hint="wait until that one has finished"
    )


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what h5py raises on a file that is not as it should be into DamagedFile."""
    try:
        yield
    except H5PY_ERRORS as error:
        text = str(error)
        if "signature not found" in text:
            raise damaged(path, "is no HDF5 file") from error
        if "truncated file" in text:
            raise damaged(path, "is truncated") from error
        reason = text.splitlines()[0] if text else type(error).__name__
        raise damaged(path, f"is damaged: {reason}") from error


def damaged(path: Path, what: str) -> DamagedFile:
    return DamagedFile(f"{path} {what}", hint="extract the features again")
