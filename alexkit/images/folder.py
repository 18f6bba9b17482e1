"""A folder of class folders, with or without splits above them, or a flat folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.images.files import (
    IMAGE_SUFFIXES,
    SPLIT_ORDER,
    SPLIT_WORDS,
    FileSource,
    counted,
    order_notes,
    path_in,
    shown,
)
from alexkit.images.indexes import SUFFIX as INDEX_SUFFIX
from alexkit.images.labels import missing_notes, numbered
from alexkit.images.source import SPLITS

_NOT_DATA = frozenset({"__MACOSX", "@eaDir", "$RECYCLE.BIN"})
"""Folders that archives, network disks and Windows add; hidden in all but name."""


def open_folder(
    root: Path, known: Mapping[str, str] | None = None, apart: Collection[str] = ()
) -> FileSource:
    """Reads the names below ``root`` and settles classes and splits; no image is opened.

    - ``root/<class>/…``: one class a folder, images at any depth below it.
    - ``root/train|val|test/<class>/…`` (and the spellings of ``SPLIT_WORDS``, in any case):
      the same in each split. It is a split when two different ones are named, or when the
      one that is named is alone or holds folders; otherwise it is a class called "train".
    - ``root/*.jpg`` with no images in folders: no labels. Likewise for a single split.

    Classes are matched by name across splits and sorted by code point, as torchvision does.
    A class folder with no image in any split is no class. Rows come in the order of
    ``SPLIT_ORDER``, then class, then path by code point: the same on every machine.

    Hidden files and folders, files whose name does not end like an image's, images beside
    class folders, and folders that link back to one above them are left out; ``notes`` says
    how many.

    Args:
        root: the folder.
        known: the class of images that lie in no class folder, by name without ending: the
            validation images of ImageNet, whose classes are in its devkit.
        apart: paths below the root that are not looked at, because they are read otherwise:
            archives beside what was unpacked. What is left then stands in splits.

    Raises:
        DataError: there is no image, or a folder cannot be listed.
    """
    walk = _Walk(os.path.abspath(root), frozenset(apart))
    parts, notes = _parts(walk, has_kit=known is not None)
    rows: list[tuple[Split, str | None, str]] = []
    folders: set[str] = set()
    deep: list[str] = []
    for split, folder in parts:
        by_class = {
            name: walk.images_below(path_in(folder, name)) for name in walk.folders(folder)
        }
        loose = [path_in(folder, name) for name in walk.images(folder)]
        folders.update(by_class)
        for name, paths in by_class.items():
            rows.extend((split, name, path) for path in paths)
            if paths and not walk.images(path_in(folder, name)):
                deep.append(path_in(folder, name))
        if not any(by_class.values()):
            for path in loose:
                stem = os.path.splitext(os.path.basename(path))[0]
                rows.append((split, (known or {}).get(stem), path))
        elif loose:
            images = counted(len(loose), "image", loose)
            notes.append(f"{images} beside the class folders left out: no label")
    if not rows:
        raise _nothing_in(walk)
    # Names of classes are not empty, so that images without one come first.
    rows.sort(key=lambda row: (SPLIT_ORDER.index(row[0]), row[1] or "", row[2]))
    classes, labels, unlabelled = numbered(
        [name for _, name, _ in rows], ": not in class folders"
    )
    splits = np.array([SPLITS.index(split) for split, _, _ in rows], np.uint8)
    if empty := sorted(folders - set(classes)) if classes else []:
        notes.append(f"{counted(len(empty), 'folder', empty)} without images: no class")
    if not apart:
        notes += missing_notes(classes, labels, splits)
    if deep and len(deep) == len({row[:2] for row in rows if row[1] is not None}):
        notes.append(_too_deep(walk, deep))
    if odd := [path for _, _, path in rows if shown(path) != path]:
        unlabelled.append(f"{counted(len(odd), 'name', odd)} not UTF-8: shown with \\x escapes")
    return FileSource(
        kind="folder",
        root=shown(walk.root),
        classes=tuple(map(shown, classes)),
        labels=labels,
        splits=splits,
        notes=(*notes, *order_notes(classes), *walk.notes(), *unlabelled),
        place=Path(walk.root),
        paths=tuple(path for _, _, path in rows),
    )


def every_image(root: Path) -> tuple[list[str], list[str]]:
    """Paths of all images at any depth below a folder, sorted by code point, relative to it;
    and what was left out, in words.

    Raises:
        DataError: a folder cannot be listed.
    """
    walk = _Walk(os.path.abspath(root), frozenset())
    paths = list(walk.images(""))
    for name in walk.folders(""):
        paths += walk.images_below(name)
    return sorted(paths), walk.notes()


def _parts(walk: _Walk, *, has_kit: bool) -> tuple[list[tuple[Split, str]], list[str]]:
    """The folders that hold class folders, with their split; "" is the root."""
    top = [name for name in walk.folders("") if not (has_kit and "devkit" in name.lower())]
    named = {name: SPLIT_WORDS[name.lower()] for name in top if name.lower() in SPLIT_WORDS}
    is_split = (
        len(set(named.values())) > 1
        or (named and len(named) == len(top))
        or any(walk.folders(name) for name in named)
        or (named and walk.apart)
    )
    if not is_split:
        return [(Split.NONE, "")], []
    notes = []
    beside = [name for name in top if name not in named]
    if beside:
        notes.append(f"{counted(len(beside), 'folder', beside)} beside the splits left out")
    if walk.images(""):
        notes.append(f"{counted(len(walk.images('')), 'image')} beside the splits left out")
    return [(split, name) for name, split in named.items()], notes


def _too_deep(walk: _Walk, deep: list[str]) -> str:
    """Tells that every class folder holds only folders: probably one level too high."""
    example = deep[0]
    inner = walk.folders(example)
    hint = (
        f"try {shown(path_in(walk.root, example))}" if len(deep) == 1 else "try one level down"
    )
    return (
        f"{shown(example)!r} holds no image itself but {counted(len(inner), 'folder', inner)};"
        f" if those are the classes, {hint}"
    )


def _nothing_in(walk: _Walk) -> DataError:
    kinds = ", ".join(f"{shown(suffix)} {n:,}" for suffix, n in walk.others.most_common(5))
    holds = f"it holds other files ({kinds})" if kinds else "it is empty"
    if walk.hidden and not kinds:
        holds = f"it holds only {_hidden(walk.hidden)}"
    return DataError(
        f"there is no image in {shown(walk.root)}: {holds}",
        hint="give a folder of class folders, a folder of images, or a list of paths",
    )


def _hidden(count: int) -> str:
    return f"{count:,} hidden file{'s or folders' if count > 1 else ' or folder'}"


class _Walk:
    """Lists each folder below a root once, and counts what is left out on the way.

    Folders are named relative to the root, with ``/``; "" is the root.
    """

    def __init__(self, root: str, apart: frozenset[str]) -> None:
        self.root = root
        self.apart = apart
        self.hidden = 0
        self.others: Counter[str] = Counter()
        self._loops: set[str] = set()
        self._listed: dict[str, tuple[list[str], list[str]]] = {}
        real = Path(os.path.realpath(root))
        self._above_root = {self._identity(str(place)) for place in (real, *real.parents)}

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in a folder, sorted by code point."""
        return self._list(folder)[0]

    def images(self, folder: str) -> list[str]:
        """Names of the images in a folder, sorted by code point."""
        return self._list(folder)[1]

    def images_below(self, folder: str) -> list[str]:
        """Paths of the images in a folder and in those below it, links followed."""
        above = set(self._above_root)
        for parent in Path(folder).parents[:-1]:
            above.add(self._identity(str(parent)))
        paths: list[str] = []
        pending = [(folder, frozenset(above))]
        while pending:
            folder, chain = pending.pop()
            identity = self._identity(folder)
            if identity in chain:
                self._loops.add(folder)
                continue
            paths.extend(path_in(folder, name) for name in self.images(folder))
            inside = chain | {identity}
            pending.extend((path_in(folder, name), inside) for name in self.folders(folder))
        return paths

    def notes(self) -> list[str]:
        """What was left out, in words."""
        notes = []
        if self.hidden:
            notes.append(f"{_hidden(self.hidden)} left out")
        if others := sum(self.others.values()):
            kinds = ", ".join(f"{shown(kind)} {n:,}" for kind, n in self.others.most_common(4))
            notes.append(f"{counted(others, 'file')} not named like images left out: {kinds}")
        if self._loops:
            loops = sorted(self._loops)
            notes.append(f"{counted(len(loops), 'link', loops)} to a folder above not followed")
        return notes

    def _list(self, folder: str) -> tuple[list[str], list[str]]:
        if folder in self._listed:
            return self._listed[folder]
        folders: list[str] = []
        images: list[str] = []
        try:
            with os.scandir(os.path.join(self.root, folder)) as entries:
                for entry in entries:
                    name = entry.name
                    if self.apart and path_in(folder, name) in self.apart:
                        continue
                    if INDEX_SUFFIX in name:
                        continue
                    if name.startswith(".") or name in _NOT_DATA:
                        self.hidden += 1
                    elif _is_folder(entry):
                        folders.append(name)
                    elif (suffix := os.path.splitext(name)[1].lower()) not in IMAGE_SUFFIXES:
                        self.others[suffix or "no ending"] += 1
                    elif entry.is_symlink() or entry.is_file():
                        # A link to nowhere stays a row: it is told as a missing file.
                        images.append(name)
        except OSError as error:
            raise self._closed(folder, error) from error
        self._listed[folder] = sorted(folders), sorted(images)
        return self._listed[folder]

    def _identity(self, folder: str) -> tuple[int, int]:
        """What two paths share that lead to the same folder."""
        try:
            status = os.stat(os.path.join(self.root, folder))
        except OSError as error:
            raise self._closed(folder, error) from error
        return status.st_dev, status.st_ino

    def _closed(self, folder: str, error: OSError) -> DataError:
        gone = isinstance(error, FileNotFoundError)
        return DataError(
            f"cannot list the folder {shown(os.path.join(self.root, folder))}:"
            f" {error.strerror}",
            hint="it went away while it was read: try again when nothing changes it"
            if gone
            else "give yourself permission to read it, or move it out of the data",
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself, or through a closed folder
        return False
