"""ImageNet as downloaded: the training archive of archives, the flat validation archive."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.events import Reporter
from alexkit.images.archive import ArchiveSource, Part, image_rows, joined_splits
from alexkit.images.devkit import find_devkit
from alexkit.images.files import SPLIT_WORDS, counted, shown
from alexkit.images.labels import missing_notes
from alexkit.images.source import NO_LABEL, SPLITS
from alexkit.images.tars import TarIndex, index_tar

TRAIN_TAR = "ILSVRC2012_img_train.tar"
VAL_TAR = "ILSVRC2012_img_val.tar"
"""The names under which ImageNet is downloaded."""

_WNID = re.compile(r"n\d{8}")
_VAL_NAME = re.compile(r"ILSVRC201\d_val_\d{8}")
_HINT = f"give {TRAIN_TAR} or {VAL_TAR} as downloaded, or a WebDataset shard"


def holds_archives(folder: Path) -> bool:
    """Whether the archives are here and are not unpacked beside themselves."""
    if not any((folder / name).is_file() for name in (TRAIN_TAR, VAL_TAR)):
        return False
    return not any(
        name.lower() in SPLIT_WORDS and (folder / name).is_dir() for name in os.listdir(folder)
    )


def is_ilsvrc(archive: Path, index: TarIndex) -> bool:
    """Whether one archive, whatever it is called, is ImageNet's, by what is in it."""
    if archive.name in (TRAIN_TAR, VAL_TAR) or index.nested[0]:
        return True
    return len(index) > 0 and _VAL_NAME.match(_stem(index, 0)) is not None


def open_ilsvrc(data: Path, report: Reporter) -> ArchiveSource:
    """Opens a folder that holds the archives, or one archive; nothing is unpacked.

    Rows are what the unpacked tree would give: ``train/n01440764/….JPEG`` by class and name,
    then ``val/….JPEG`` by class and name, so labels, order and fingerprint are the same.
    Validation labels come from the devkit beside the archives; without it those images have
    none, and a note says so. The first opening reads every header, minutes for the 138 GB of
    the training archive on a hard disk; the next one takes less than a second.

    Raises:
        DataError: an archive or the devkit is damaged, cut short or something else.
    """
    data = Path(os.path.abspath(data))
    files = [data] if data.is_file() else [data / TRAIN_TAR, data / VAL_TAR]
    opened = [_opened(file, report) for file in files if file.is_file()]
    used = {one.names[code] for one in opened for code in np.unique(one.codes) if code >= 0}
    classes = tuple(sorted(used))
    label_of = {name: label for label, name in enumerate(classes)}
    parts, labels = [], []
    for one in opened:
        # The last place is where code -1 leads.
        by_code = [label_of.get(name, NO_LABEL) for name in one.names]
        found = np.array([*by_code, NO_LABEL], np.int32)[one.codes]
        order = np.argsort(found, kind="stable")
        parts.append(replace(one.part, rows=one.part.rows[order]))
        labels.append(found[order])
    joined = np.concatenate(labels)
    splits = joined_splits(parts, [SPLITS.index(one.split) for one in opened])
    notes = [note for one in opened for note in one.notes]
    return ArchiveSource(
        kind="ilsvrc",
        root=shown(str(data)),
        classes=classes,
        labels=joined,
        splits=splits,
        notes=(*notes, *missing_notes(classes, joined, splits)),
        parts=tuple(parts),
    )


@dataclass(frozen=True, eq=False)
class _Opened:
    """One archive: its images, and the class of each as a code into names, -1 = none."""

    part: Part
    names: list[str]
    codes: npt.NDArray[np.int64]
    split: Split
    notes: list[str]


def _opened(file: Path, report: Reporter) -> _Opened:
    index = index_tar(file, report)
    rows = image_rows(index)
    if not len(rows):
        raise DataError(f"there is no image in {shown(str(file))}", hint=_HINT)
    notes = index.notes(file.name)
    if others := len(index) - len(rows):
        notes.append(f"{counted(others, 'file')} in {file.name} not named like images left out")
    if index.nested[0]:
        return _train(Part(file, "train/", index, rows), notes)
    return _val(Part(file, "val/", index, rows), notes)


def _train(part: Part, notes: list[str]) -> _Opened:
    """The archive of archives, one for each class."""
    names = part.index.folder_names()
    codes = part.index.folder[part.rows].astype(np.int64)
    used = np.unique(codes).tolist()
    if odd := [names[code] for code in used if not _WNID.fullmatch(names[code])]:
        raise DataError(
            f"{shown(str(part.place))} is not ImageNet's training archive: {odd[0]!r} in it"
            " is no WordNet id",
            hint=_HINT,
        )
    if empty := int(part.index.nested[0]) - len(used):
        notes.append(f"{counted(empty, 'archive')} in {part.place.name} without images")
    return _Opened(part, names, codes, Split.TRAIN, notes)


def _val(part: Part, notes: list[str]) -> _Opened:
    """The flat archive; its labels are in the devkit beside it."""
    stems = [_stem(part.index, row) for row in part.rows.tolist()]
    if odd := [stem for stem in stems if not _VAL_NAME.fullmatch(stem)]:
        raise DataError(
            f"{shown(str(part.place))} is not ImageNet's validation archive: it holds"
            f" {odd[0]!r}",
            hint=_HINT,
        )
    kit = find_devkit(part.place.parent)
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
    return _Opened(part, names, np.array(codes, np.int64), Split.VAL, notes)


def _stem(index: TarIndex, row: int) -> str:
    return os.path.splitext(os.path.basename(shown(os.fsdecode(index.path(row)))))[0]
