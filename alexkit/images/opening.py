"""From the DATA a user typed to the source that reads it."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from alexkit.errors import DataError
from alexkit.events import Reporter, silent
from alexkit.images.devkit import find_devkit
from alexkit.images.files import IMAGE_SUFFIXES, names_in, shown
from alexkit.images.folder import open_folder
from alexkit.images.hub import is_dataset, open_dataset
from alexkit.images.ilsvrc import is_ilsvrc, layout_of, open_ilsvrc, open_ilsvrc_folder
from alexkit.images.listing import LIST_SUFFIXES, open_list
from alexkit.images.pack import SUFFIX as PACK_SUFFIX
from alexkit.images.packed import open_pack
from alexkit.images.source import ImageSource
from alexkit.images.tars import index_tar
from alexkit.images.webdataset import is_pattern, open_webdataset, shards_in, shards_of


def open_source(data: Path, report: Reporter = silent) -> ImageSource:
    """Opens whatever a user may give as DATA, decided by what is there.

    Args:
        data: a folder, a list, an archive, a shard pattern, a dataset.
        report: told how far it is where opening takes long: an archive's first time.

    Raises:
        DataError: nothing is there, it holds no image, is damaged, or is none of these.
        UsageError: it needs an extra that is not installed.
    """
    if data.is_dir():
        return _open_place(data, report)
    name = shown(str(data))
    if not os.path.lexists(data):
        if is_pattern(data):
            return open_webdataset(data, shards_of(data), report)
        raise DataError(f"there is no {name}", hint=_close_to(data))
    if not data.is_file():
        raise DataError(
            f"{name} is neither a folder nor a file",
            hint="if it is a link, what it points to is gone",
        )
    suffix = data.suffix.lower()
    if suffix in LIST_SUFFIXES:
        return open_list(data)
    if suffix == PACK_SUFFIX:
        return open_pack(data)
    if suffix == ".tar":
        if is_ilsvrc(data, index_tar(data, report)):
            return open_ilsvrc(data, report)
        return open_webdataset(data, [data], report)
    if suffix == ".parquet":
        return open_dataset(data)
    if suffix in IMAGE_SUFFIXES:
        raise DataError(
            f"{name} is one image, not a data set", hint="give the folder that holds it"
        )
    raise DataError(
        f"{name} is a file where a folder or a list should be",
        hint=f"a list ends in {', '.join(sorted(LIST_SUFFIXES))}, an archive in .tar;"
        " unpack other archives first",
    )


def _open_place(folder: Path, report: Reporter) -> ImageSource:
    if is_dataset(folder):
        return open_dataset(folder)
    if (layout := layout_of(folder)) is not None:
        return open_ilsvrc_folder(folder, layout, report)
    if shards := shards_in(folder):
        return open_webdataset(folder, shards, report)
    kit = find_devkit(folder)
    return open_folder(folder, kit.classes if kit else None)


def _close_to(data: Path) -> str:
    """A neighbour with a similar name, else the part of the path that exists."""
    place = Path(os.path.abspath(data))
    existing = next(parent for parent in place.parents if parent.is_dir())
    missing = place.relative_to(existing).parts[0]
    folded = {name.lower(): name for name in names_in(existing)}
    close = difflib.get_close_matches(missing.lower(), folded, n=1)
    if close:
        return f"did you mean {shown(str(existing / folded[close[0]]))}?"
    return f"{shown(str(existing))} exists, but holds no {shown(missing)}"
