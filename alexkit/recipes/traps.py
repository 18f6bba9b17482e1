"""What is wrong with a data set as a whole, in words and with what to do about it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.events import silent
from alexkit.images.files import IMAGE_SUFFIXES, SPLIT_ORDER, SPLIT_WORDS, counted
from alexkit.images.source import NO_LABEL, SPLITS, ImageSource
from alexkit.images.survey import Look
from alexkit.recipes.inputs import holdout


@dataclass(frozen=True)
class Finding:
    """One thing a person should know before computing.

    Attributes:
        wrong: whether training on the data as it is would be impossible or mislead.
        text: what it is.
        hint: what to do; "" if nothing needs doing.
    """

    wrong: bool
    text: str
    hint: str = ""


def traps(
    source: ImageSource, looks: Sequence[Look], *, fraction: float, seed: int
) -> list[Finding]:
    """Everything found, what is wrong first.

    Args:
        looks: at some or all images.
        fraction, seed: how training would hold images out; see
            :func:`alexkit.recipes.inputs.holdout`.
    """
    found = [
        *_untrainable(source, fraction, seed),
        *_folder_levels(source),
        *_missing_classes(source),
        *_duplicates(source, looks),
        *_unreadable(source, looks),
        *_sideways(looks),
    ]
    # A source's own notes tell some of the same in the same words.
    told = {finding.text for finding in found}
    found += [Finding(False, note) for note in source.notes if note not in told]
    return sorted(found, key=lambda finding: not finding.wrong)


def _untrainable(source: ImageSource, fraction: float, seed: int) -> list[Finding]:
    """What `train` and `finetune` would refuse, in their words."""
    try:
        holdout(source, fraction=fraction, seed=seed, report=silent)
    except DataError as error:
        return [Finding(True, error.message, error.hint + _too_deep(source))]
    return []


def _too_deep(source: ImageSource) -> str:
    """More of a hint where the folder may be one class folder among others; else ""."""
    root = Path(source.root)
    if source.kind != "folder" or (source.labels != NO_LABEL).any():
        return ""
    for sibling in _folders(root.parent):
        if sibling != root and any(p.suffix.lower() in IMAGE_SUFFIXES for p in _in(sibling)):
            return f"; if this is one class among others, name {root.parent}"
    return ""


def _folder_levels(source: ImageSource) -> list[Finding]:
    """One level too high, or splits below the classes; or a split named alone."""
    if source.kind != "folder":
        return []
    root = Path(source.root)
    if root.name.lower() in SPLIT_WORDS:
        others = [p.name for p in _folders(root.parent) if p.name.lower() in SPLIT_WORDS]
        others.remove(root.name)
        if others:
            text = f"{counted(len(others), 'other split', others)} beside {root.name!r} unused"
            return [Finding(False, text, f"name the folder above: {root.parent}")]
    inner: dict[int, set[str]] = defaultdict(set)
    for row in range(len(source)):
        record = source.record(row)
        below = record.path.split("/")[1 + (record.split is not Split.NONE) :]
        if record.label != NO_LABEL:
            if len(below) < 2:
                return []  # an image directly in a class folder: the level is right
            inner[record.label].add(below[0])
    shared = sorted(set.intersection(*inner.values())) if len(inner) > 1 else []
    if not shared:
        return []
    text = f"every class folder holds {counted(len(shared), 'folder', shared)} and no image"
    if all(name.lower() in SPLIT_WORDS for name in shared):
        return [Finding(True, text, "put the splits above the classes: train/CLASS/photo.jpg")]
    return [Finding(True, text, "if those are the classes, name the folder one level down")]


def _missing_classes(source: ImageSource) -> list[Finding]:
    """A class that cannot be learnt is wrong; one that is not judged is worth a word."""
    here = {
        split: set(np.unique(source.labels[source.splits == SPLITS.index(split)])) - {NO_LABEL}
        for split in SPLIT_ORDER
    }
    found = []
    for split in SPLIT_ORDER:
        missing = [
            name for label, name in enumerate(source.classes) if label not in here[split]
        ]
        if here[split] and missing:
            text = f"{split.value} has no image of {counted(len(missing), 'class', missing)}"
            if split is Split.TRAIN:
                found.append(Finding(True, text, "add images to train, or leave the class out"))
            else:
                found.append(
                    Finding(False, text, "accuracy says nothing about what is missing")
                )
    return found


def same_bytes(looks: Iterable[Look]) -> list[list[int]]:
    """Rows whose encoded bytes are equal, a list for each image that is there repeatedly."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for one in looks:
        if one.digest:
            rows[one.digest].append(one.row)
    return [equal for equal in rows.values() if len(equal) > 1]


def _duplicates(source: ImageSource, looks: Sequence[Look]) -> list[Finding]:
    leaks, contradictions, repeats = [], [], []
    for rows in same_bytes(looks):
        pair = [source.record(row).path for row in rows]
        if len({int(source.splits[row]) for row in rows}) > 1:
            leaks.append(pair)
        elif len({int(source.labels[row]) for row in rows}) > 1:
            contradictions.append(pair)
        else:
            repeats.append(pair)
    found = []
    for groups, wrong, what, hint in (
        (leaks, True, "in more than one split", "keep each in one split: accuracy would lie"),
        (contradictions, True, "in more than one class", "keep each in the class it shows"),
        (repeats, False, "more than once in the same class", ""),
    ):
        if groups:
            example = " = ".join(groups[0][:3])
            text = f"{counted(len(groups), 'image')} {what}, e.g. {example}"
            found.append(Finding(wrong, text, hint))
    return found


def _unreadable(source: ImageSource, looks: Sequence[Look]) -> list[Finding]:
    bad = [one for one in looks if one.reason]
    if not bad:
        return []
    found = []
    seen = {int(source.labels[one.row]) for one in looks}
    good = {int(source.labels[one.row]) for one in looks if not one.reason}
    if not good:
        return [Finding(True, "no image can be decoded", "are these images?")]
    if gone := [source.classes[label] for label in sorted(seen - good - {NO_LABEL})]:
        text = f"not one image of {counted(len(gone), 'class', gone)} could be decoded"
        found.append(Finding(True, text, "mend its images, or leave the class out"))
    first = bad[0]
    text = f"{counted(len(bad), 'image')} cannot be decoded, e.g. "
    text += f"{source.record(first.row).path}: {first.reason}"
    hint = "training leaves them out, features keep their rows as NaN"
    return [*found, Finding(False, text, hint)]


def _sideways(looks: Sequence[Look]) -> list[Finding]:
    turned = sum("EXIF orientation" in one.remark for one in looks)
    if not turned:
        return []
    verb = "says which way it was" if turned == 1 else "say which way they were"
    text = f"{counted(turned, 'photo')} {verb} held (EXIF)"
    return [Finding(False, text, "finetune turns them upright, the others with --exif apply")]


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in _in(place) if p.is_dir() and not p.name.startswith("."))


def _in(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except OSError:
        return []
