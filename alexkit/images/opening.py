"""From the DATA a user typed to the source that reads it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from alexkit.errors import DataError
from alexkit.images.files import IMAGE_SUFFIXES, shown
from alexkit.images.folder import open_folder
from alexkit.images.listing import LIST_SUFFIXES, open_list
from alexkit.images.source import ImageSource


def open_source(data: Path) -> ImageSource:
    """Opens a folder or a list, decided by what is there.

    Raises:
        DataError: nothing is there, it holds no image, or it is a file that is no list.
    """
    if data.is_dir():
        return open_folder(data)
    name = shown(str(data))
    if not os.path.lexists(data):
        raise DataError(f"there is no {name}", hint=_close_to(data))
    if not data.is_file():
        raise DataError(
            f"{name} is neither a folder nor a file",
            hint="if it is a link, what it points to is gone",
        )
    suffix = data.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return open_list(data)
    if suffix in IMAGE_SUFFIXES:
        raise DataError(
            f"{name} is one image, not a data set", hint="give the folder that holds it"
        )
    raise DataError(
        f"{name} is a file where a folder or a list should be",
        hint=f"a list ends in {', '.join(sorted(LIST_SUFFIXES))}; unpack an archive first",
    )


def _close_to(data: Path) -> str:
    """A neighbour with a similar name, else the part of the path that exists."""
    place = Path(os.path.abspath(data))
    existing = next(parent for parent in place.parents if parent.is_dir())
    missing = place.relative_to(existing).parts[0]
    try:
        neighbours = sorted(os.listdir(existing))
    except OSError:
        neighbours = []
    folded = {name.lower(): name for name in neighbours}
    close = difflib.get_close_matches(missing.lower(), folded, n=1)
    if close:
        return f"did you mean {shown(str(existing / folded[close[0]]))}?"
    return f"{shown(str(existing))} exists, but holds no {shown(missing)}"
