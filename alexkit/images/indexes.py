"""What took long to find out about an archive, kept until the archive changes."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SUFFIX = ".alexkit-index"
"""How the hidden files end in which something is kept."""
LEFT_SECONDS = 3600.0
"""No file is written for so long: an unfinished one of that age has been left behind."""


def remembered(archive: Path, key: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]] | None:
    """The columns kept for an archive, if they are whole and were kept under this key."""
    for place in _places(archive):
        try:
            # numpy leaves a file that it opened itself open when it is damaged.
            with open(place, "rb") as file, np.load(file, allow_pickle=False) as kept:
                if np.array_equal(kept["key"], key):
                    return {name: kept[name] for name in kept.files if name != "key"}
        # Cut or altered bytes lead zipfile and NumPy into nearly any exception.
        except Exception:
            continue
    return None


def remember(
    archive: Path,
    key: npt.NDArray[np.int64],
    columns: Mapping[str, npt.NDArray[Any]],
    *,
    mode: int,
) -> None:
    """Keeps columns, whole or not at all, beside the archive or else in the user's cache.

    Args:
        archive: what they are about; need not be a file.
        key: that changes when the archive does.
        columns: under names other than ``key``.
        mode: of the file, so that it is readable for whom the archive is.
    """
    for place in _places(archive):
        partial = ""
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            _sweep(place)
            descriptor, partial = tempfile.mkstemp(prefix=f"{place.name}.", dir=place.parent)
            with open(descriptor, "wb") as file:
                np.savez(file, key=key, **columns)  # type: ignore[arg-type]
            os.chmod(partial, mode)
            os.replace(partial, place)
        except OSError:
            # No room or no permission: the index is a convenience, never a reason to fail.
            if partial:
                with contextlib.suppress(OSError):
                    os.unlink(partial)
        else:
            return


def _sweep(place: Path) -> None:
    """Removes what processes left that were killed while they wrote: nothing else would."""
    for left in place.parent.glob(f"{glob.escape(place.name)}.*"):
        with contextlib.suppress(OSError):  # another process was quicker
            if time.time() - left.stat().st_mtime > LEFT_SECONDS:
                left.unlink()


def _places(archive: Path) -> tuple[Path, Path]:
    place = Path(os.path.abspath(archive))
    beside = place.with_name(f".{place.name}{SUFFIX}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    named = hashlib.sha256(os.fsencode(place)).hexdigest()[:16]
    return beside, cache / "alexkit" / "indexes" / f"{named}{SUFFIX}"
