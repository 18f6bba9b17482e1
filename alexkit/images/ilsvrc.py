"""ImageNet as downloaded, or with some of its archives unpacked."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.events import Reporter
from alexkit.images.archive import ArchiveSource, Part, image_rows
from alexkit.images.devkit import WNID, Devkit, find_devkit
from alexkit.images.files import SPLIT_WORDS, counted, is_image_name, names_in, path_in, shown
from alexkit.images.folder import open_folder
from alexkit.images.joined import JoinedSource, joined
from alexkit.images.labels import missing_notes
from alexkit.images.source import NO_LABEL, SPLITS, in_splits
from alexkit.images.tars import TarIndex, index_folder, index_tar

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
"""The names under which ImageNet is downloaded."""

_VAL_NAME = re.compile(r"ILSVRC201\d_val_\d{8}")
_HINT = f"give {TRAIN_TAR} or {VAL_TAR} as downloaded, or a WebDataset shard"


@dataclass(frozen=True)
class Layout:
    """What of ImageNet is in a folder, and as what.

    Attributes:
        archives: the two as downloaded, as far as their images are not unpacked here.
        classes: the folder of the 1,000 class archives, if there are such; relative to the
            root, "" for the root itself.
        names: of the class archives.
        apart: paths below the root that are no unpacked images.
        alone: whether the class archives are no split of something larger.
        trees: whether there are unpacked images too.
    """

    archives: tuple[str, ...]
    classes: str
    names: tuple[str, ...]
    apart: tuple[str, ...]
    alone: bool
    trees: bool


def layout_of(root: Path) -> Layout | None:
    """What a folder holds if any of it is still in an archive of ImageNet's; else None.

    The whole archives give way to what is unpacked beside them. A class archive does not
    give way to its folder: people remove the archive when the folder is whole.
    """
    folders = {
        name: SPLIT_WORDS[name.lower()]
        for name in names_in(root)
        if name.lower() in SPLIT_WORDS and (root / name).is_dir()
    }
    # Of class archives in a folder called val nothing is known.
    places = ["", *(name for name, split in folders.items() if split is Split.TRAIN)]
    held = {place: _class_archives(root / place) for place in places}
    classes = next((place for place in places if held[place]), "")
    names = held[classes]
    apart = [path_in(classes, name) for name in names]
    apart += [path_in(classes, name[: -len(".tar")]) for name in names]
    unpacked = {
        split
        for name, split in folders.items()
        if any(
            path_in(name, inside) not in apart for inside in _images_and_folders(root / name)
        )
    }
    wanted = ((TRAIN_TAR, Split.TRAIN), (VAL_TAR, Split.VAL))
    archives = tuple(
        name
        for name, split in wanted
        if (root / name).is_file()
        and split not in unpacked
        and not (names and split is Split.TRAIN)
    )
    if not archives and not names:
        return None
    # Some classes of the same folder may be unpacked already.
    loose = classes == "" and any(
        WNID.fullmatch(name) and name not in apart and (root / name).is_dir()
        for name in (names_in(root) if names else ())
    )
    return Layout(
        archives=archives,
        classes=classes,
        names=tuple(names),
        apart=(*apart, TRAIN_TAR, VAL_TAR),
        alone=loose or not (classes or archives or unpacked),
        trees=loose or bool(unpacked),
    )


def is_ilsvrc(archive: Path, index: TarIndex) -> bool:
    """Whether one archive, whatever it is called, is ImageNet's, by what is in it."""
    if archive.name in (TRAIN_TAR, VAL_TAR) or index.nested[0]:
        return True
    return len(index) > 0 and _VAL_NAME.match(_stem(index, 0)) is not None


def open_ilsvrc(archive: Path, report: Reporter) -> ArchiveSource:
    """Opens one archive; nothing is unpacked.

    Rows are what the unpacked tree would give: ``train/n01440764/….JPEG`` by class and name,
    or ``val/….JPEG`` by class and name. Validation labels come from the devkit beside the
    archive; without it those images have none, and a note says so. The first opening reads
    every header, minutes for the 138 GB of the training archive on a hard disk; the next one
    takes less than a second.

    Raises:
        DataError: the archive or the devkit is damaged, truncated or something else.
    """
    archive = Path(os.path.abspath(archive))
    opened = _opened(archive, find_devkit(archive.parent), report)
    return _source(archive, [opened])


def open_ilsvrc_folder(
    root: Path, layout: Layout, report: Reporter
) -> ArchiveSource | JoinedSource:
    """Opens ImageNet in any mixture of archives and unpacked folders.

    Labels, order and fingerprint are those of the tree with all unpacked: ``train/…`` by
    class and name, then ``val/…`` by class and name. A folder of class archives alone is one
    of class folders alone, without a split.

    Raises:
        DataError: an archive or the devkit is damaged, truncated or something else; or
            validation images without a devkit stand beside training images.
    """
    root = Path(os.path.abspath(root))
    kit = find_devkit(root)
    opened = [_opened(root / name, kit, report) for name in layout.archives]
    if layout.names:
        opened.insert(0, _class_tars(root, layout, report))
    tree = None
    if layout.trees:
        tree = open_folder(root, kit.classes if kit else None, layout.apart)
    archives = _source(root, opened)
    source: ArchiveSource | JoinedSource = archives
    if tree is not None:
        source = joined("ilsvrc", archives.root, [tree, archives])
    source.notes += tuple(missing_notes(source.classes, source.labels, source.splits))
    unknown = (source.labels == NO_LABEL) & in_splits(source.splits, Split.VAL)
    if kit is None and source.classes and unknown.any():
        raise DataError(
            f"the classes of {counted(int(unknown.sum()), 'validation image')} are not known:"
            f" no devkit is in {source.root}",
            hint="put ILSVRC2012_devkit_t12.tar.gz there, or name the training data alone",
        )
    return source


def _source(root: Path, opened: Sequence[_Opened]) -> ArchiveSource:
    used = {one.names[code] for one in opened for code in np.unique(one.codes) if code >= 0}
    classes = tuple(sorted(used))
    label_of = {name: label for label, name in enumerate(classes)}
    parts: list[Part] = []
    labels, splits = [], []
    for one in opened:
        # The last place is where code -1 leads.
        by_code = [label_of.get(name, NO_LABEL) for name in one.names]
        found = np.array([*by_code, NO_LABEL], np.int32)[one.codes]
        at = 0
        for part in one.parts:
            mine = found[at : at + len(part.rows)]
            order = np.argsort(mine, kind="stable")
            parts.append(replace(part, rows=part.rows[order]))
            labels.append(mine[order])
            at += len(mine)
        splits.append(np.full(at, SPLITS.index(one.split), np.uint8))
    joined_labels, joined_splits = np.concatenate(labels), np.concatenate(splits)
    notes = [note for one in opened for note in one.notes]
    return ArchiveSource(
        kind="ilsvrc",
        root=shown(str(root)),
        classes=classes,
        labels=joined_labels,
        splits=joined_splits,
        notes=tuple(notes),
        parts=tuple(parts),
    )


@dataclass(frozen=True, eq=False)
class _Opened:
    """Archives of one split: their images, and the class of each as a code into names, -1 =
    none. Several archives come in the order of their classes, each of one class."""

    parts: list[Part]
    names: list[str]
    codes: npt.NDArray[np.int64]
    split: Split
    notes: list[str]


def _opened(file: Path, kit: Devkit | None, report: Reporter) -> _Opened:
    index = index_tar(file, report)
    rows, notes = _images_in(file.name, index, shown(str(file)))
    if index.nested[0]:
        return _train(Part(file, "train/", index, rows), notes)
    return _val(Part(file, "val/", index, rows), kit, notes)


def _class_tars(root: Path, layout: Layout, report: Reporter) -> _Opened:
    """The 1,000 archives that the training archive held, in a folder."""
    folder = root / layout.classes
    index = index_folder(folder, layout.names, report)
    told = f"the class archives of {folder.name}"
    rows, notes = _images_in(told, index, shown(str(folder)))
    names = [name[: -len(".tar")] for name in layout.names]
    # The first part of each path is the archive's name; they are few among many rows.
    place = {name: code for code, name in enumerate(names)}
    of_folder = np.array([place[name.split("/")[0]] for name in index.folder_names()])
    codes = of_folder[index.folder[rows]].astype(np.int64)
    order = np.argsort(codes, kind="stable")
    rows, codes = rows[order], codes[order]
    prefix, split = ("", Split.NONE) if layout.alone else ("train/", Split.TRAIN)
    starts = np.searchsorted(codes, np.arange(len(names) + 1))
    parts = [
        Part(folder / name, prefix, index, rows[starts[code] : starts[code + 1]])
        for code, name in enumerate(layout.names)
        if starts[code] < starts[code + 1]
    ]
    if empty := len(names) - len(parts):
        notes.append(f"{counted(empty, 'class archive')} in {folder.name} without images")
    if both := [name for name in names if (folder / name).is_dir()]:
        notes.append(
            f"{counted(len(both), 'class folder', both)} left out: their archives are there too"
        )
    return _Opened(parts, names, codes, split, notes)


def _images_in(
    archive: str, index: TarIndex, place: str
) -> tuple[npt.NDArray[np.int64], list[str]]:
    rows = image_rows(index)
    if not len(rows):
        raise DataError(f"there is no image in {place}", hint=_HINT)
    notes = index.notes(archive)
    if others := len(index) - len(rows):
        notes.append(f"{counted(others, 'file')} in {archive} not named like images left out")
    return rows, notes


def _train(part: Part, notes: list[str]) -> _Opened:
    """The archive of archives, one for each class."""
    names = part.index.folder_names()
    codes = part.index.folder[part.rows].astype(np.int64)
    used = np.unique(codes).tolist()
    if odd := [names[code] for code in used if not WNID.fullmatch(names[code])]:
        raise DataError(
            f"{shown(str(part.place))} is not ImageNet's training archive: {odd[0]!r} in it"
            " is no WordNet id",
            hint=_HINT,
        )
    if empty := int(part.index.nested[0]) - len(used):
        notes.append(f"{counted(empty, 'archive')} in {part.place.name} without images")
    return _Opened([part], names, codes, Split.TRAIN, notes)


def _val(part: Part, kit: Devkit | None, notes: list[str]) -> _Opened:
    """The flat archive; its labels are in the devkit beside it."""
    stems = [_stem(part.index, row) for row in part.rows.tolist()]
    if odd := [stem for stem in stems if not _VAL_NAME.fullmatch(stem)]:
        raise DataError(
            f"{shown(str(part.place))} is not ImageNet's validation archive: it holds"
            f" {odd[0]!r}",
            hint=_HINT,
        )
    known = kit.classes if kit else {}
    names = sorted(set(known.values()))
    code_of = {name: code for code, name in enumerate(names)}
    codes = [code_of[known[stem]] if stem in known else -1 for stem in stems]
    if kit is None:
        notes.append(
            f"no devkit beside {part.place.name}: validation images have no labels;"
            " put ILSVRC2012_devkit_t12.tar.gz there"
        )
    else:
        notes.append(f"labels of the validation images from {kit.place}")
        if without := codes.count(-1):
            notes.append(f"{counted(without, 'validation image')} not in the devkit: no label")
    return _Opened([part], names, np.array(codes, np.int64), Split.VAL, notes)


def _stem(index: TarIndex, row: int) -> str:
    return os.path.splitext(os.path.basename(shown(os.fsdecode(index.path(row)))))[0]


def _class_archives(folder: Path) -> list[str]:
    """Names of the archives called as a WordNet id, sorted."""
    return [
        name
        for name in names_in(folder)
        if name.endswith(".tar")
        and WNID.fullmatch(name[: -len(".tar")])
        and (folder / name).is_file()
    ]


def _images_and_folders(folder: Path) -> list[str]:
    return [
        name
        for name in names_in(folder)
        if not name.startswith(".") and (is_image_name(name) or (folder / name).is_dir())
    ]
