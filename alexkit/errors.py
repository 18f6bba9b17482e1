"""Every error a user can cause, with its exit status and a hint.

    AlexkitError
    ├── UsageError              2   wrong option, or an output that exists already
    │   ├── UnknownName         2   a layer, model, class or option that does not exist
    │   └── OutputExists        2   a finished output, and no --overwrite
    ├── DataError               3   data missing or unreadable
    │   ├── UnreadableImage     3   one image that cannot be decoded
    │   └── DownloadFailed      3   weights that could not be fetched
    ├── FileMismatch            4   a file of ours is damaged, foreign or does not match
    │   ├── DamagedFile         4   truncated, edited, or not the format it claims to be
    │   └── WeightsMismatch     4   tensors missing, unexpected or of another shape
    ├── ResourceError           5   the machine lacks what was asked for
    │   ├── DeviceMissing       5   a device that is not there
    │   ├── OutOfMemory         5   the device ran out of memory
    │   └── OutOfSpace          5   the disk is full or cannot be written
    ├── Diverged                6   the loss is no longer a number
    ├── WorkerFailed            7   a worker process or thread died
    └── Interrupted           130   stopped by a signal; the same command continues

Everything else that is raised is a bug of ours. ``cli/app.py`` is the only place
that catches this tree; it prints one ``error:`` line and one ``hint:`` line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlexkitError(Exception):
    """Base of the tree.

    Args:
        message: what is wrong, one sentence, without a full stop at the end.
        hint: what to do about it, one sentence.
    """

    exit_status = 1

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # The keyword-only hint would be lost by the default pickling of exceptions.
        return (_rebuild, (type(self), self.message, self.hint))


def _rebuild(kind: type[AlexkitError], message: str, hint: str) -> AlexkitError:
    error = kind.__new__(kind)
    AlexkitError.__init__(error, message, hint=hint)
    return error


class UsageError(AlexkitError):
    """Wrong usage or a wrong option value."""

    exit_status = 2


class UnknownName(UsageError):
    """A name that is none of the known ones; the hint has the close match and the list.

    Args:
        kind: what the name should have named, e.g. ``"layer"``.
        name: what was typed.
        known: every accepted name, in the order to show them.
        listed_by: what to type for the list, where it is too long to show; the hint then has
            up to five close matches.
    """

    def __init__(
        self, kind: str, name: str, known: Iterable[str], *, listed_by: str | None = None
    ) -> None:
        names = list(known)
        most = 5 if listed_by else 1
        close = difflib.get_close_matches(name, names, n=most, cutoff=0.5)
        guess = f"did you mean {', '.join(close)}? " if close else ""
        rest = f"`{listed_by}` lists all" if listed_by else f"known: {', '.join(names)}"
        super().__init__(f"there is no {kind} {name!r}", hint=guess + rest)


class OutputExists(UsageError):
    """A finished output stands where this command would write."""


class DataError(AlexkitError):
    """Data is missing or unreadable."""

    exit_status = 3


class UnreadableImage(DataError):
    """One image that cannot be decoded; ``message`` is the reason, without the path."""


class DownloadFailed(DataError):
    """A file could not be fetched, or its hash is not the published one."""


class FileMismatch(AlexkitError):
    """A file of ours is foreign or does not belong to what was asked."""

    exit_status = 4


class DamagedFile(FileMismatch):
    """A file is truncated, edited, or not what its name says."""


class WeightsMismatch(FileMismatch):
    """Weights lack tensors, hold unexpected ones, or have other shapes."""


class ResourceError(AlexkitError):
    """The machine lacks what was asked for."""

    exit_status = 5


class DeviceMissing(ResourceError):
    """A device that was asked for is not there."""


class OutOfMemory(ResourceError):
    """A device ran out of memory."""


class OutOfSpace(ResourceError):
    """An output cannot be written: disk full, read-only, or no permission."""


class Diverged(AlexkitError):
    """Training produced a loss or gradient that is not finite."""

    exit_status = 6


class WorkerFailed(AlexkitError):
    """A worker process or thread died."""

    exit_status = 7


class Interrupted(AlexkitError):
    """A signal stopped the work; what was done is kept and the same command continues."""

    exit_status = 130
