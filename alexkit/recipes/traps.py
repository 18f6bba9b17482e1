"""What is wrong with a data set as a whole, in words and with what to do about it.

Wrong, so that `alexkit check` ends with 3, is what makes training impossible or its figures
a lie: no labels, one class, nothing to hold out; the folder a level too high or too deep;
splits below classes; a class that training never sees, or of which no image can be decoded;
validation images without labels; the same image in two splits or in two classes; class names
that a person reads as the same.

Told, and no more, is what training survives: a class that is not judged, a folder without
images, one image of a class, classes of very different sizes, bad, tiny, turned or repeated
images, GIFs among photos, files and folders left out, links in circles, numbers in the order
of text.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.events import silent
from alexkit.images.files import IMAGE_SUFFIXES, SPLIT_ORDER, SPLIT_WORDS, counted, order_notes
from alexkit.images.source import NO_LABEL, ImageSource, in_splits
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


MANY_TIMES = 10
"""From this ratio of the largest class to the smallest it is told. ImageNet's own is 1.8
(1,300 to 732 training images a class; Russakovsky et al. 2015, table 2)."""

TINY = 64
"""Pixels; a shorter short side is told. Enlarged to 256 it is mostly blur."""

FEW_GIFS = 0.1
"""Up to this share of the images GIFs are told: buttons and placeholders, rarely photos."""


def traps(
    source: ImageSource,
    looks: Sequence[Look],
    duplicates: Sequence[Sequence[int]],
    *,
    fraction: float,
    seed: int,
) -> list[Finding]:
    """Everything found, what is wrong first.

    Args:
        looks: at some or all images.
        duplicates: rows with the same bytes, a list for each image that is there repeatedly.
        fraction, seed: how training would hold images out; see
            :func:`alexkit.recipes.inputs.holdout`.
    """
    found = [
        *_untrainable(source, fraction, seed),
        *_folder_levels(source),
        *_missing_classes(source),
        *_unlabelled_splits(source),
        *_names_alike(source),
        *_sizes_of_classes(source),
        *_duplicates(source, duplicates),
        *_unreadable(source, looks),
        *_sideways(looks),
        *_tiny(source, looks),
        *_gifs(source, looks),
        *(Finding(False, note) for note in order_notes(source.classes)),
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
        hint = error.hint
        if not source.classes:
            hint += f" (features needs no labels){_too_deep(source)}"
        elif below := _too_high(source):
            hint = f"name {below}"
        return [Finding(True, error.message, hint)]
    return []


def _too_high(source: ImageSource) -> str:
    """The only class's folder, where it holds folders and no image; else ""."""
    place = Path(source.root) / source.classes[0]
    if source.kind != "folder" or len(source.classes) > 1 or len(_folders(place)) < 2:
        return ""
    direct = any(p.suffix.lower() in IMAGE_SUFFIXES for p in _in(place))
    return "" if direct else str(place)


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
        split: set(np.unique(source.labels[in_splits(source.splits, split)])) - {NO_LABEL}
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


def _unlabelled_splits(source: ImageSource) -> list[Finding]:
    """Validation images that cannot judge. Of a test split people often have no labels."""
    found = []
    for split in (Split.VAL, Split.TEST) if source.classes else ():
        inside = source.labels[in_splits(source.splits, split)]
        if len(inside) and (inside == NO_LABEL).all():
            hint = "put them into class folders"
            if (Path(source.root) / "train").is_dir() or source.kind == "ilsvrc":
                hint += ", or ImageNet's devkit beside the splits"
            text = f"none of the {counted(len(inside), 'image')} in {split.value} has a label"
            found.append(Finding(split is Split.VAL, text, hint))
    return found


def _names_alike(source: ImageSource) -> list[Finding]:
    """Single letters are let pass: people do sort handwriting into "a" and "A"."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in source.classes:
        if len(name) > 1:
            alike[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    found = []
    for names in alike.values():
        if len(names) > 1:
            same = len({unicodedata.normalize("NFC", name) for name in names}) == 1
            told = " and ".join(ascii(name) if same else repr(name) for name in names)
            how = (
                "the encoding of their letters" if same else "case, spaces or forms of letters"
            )
            text = f"the classes {told} differ only in {how}"
            found.append(Finding(True, text, "make them one class, or give them other names"))
    return found


def _sizes_of_classes(source: ImageSource) -> list[Finding]:
    """Of the images that are learnt from, held out ones included."""
    learnt = in_splits(source.splits, Split.TRAIN, Split.NONE)
    labels = source.labels[learnt & (source.labels != NO_LABEL)]
    counts = np.bincount(labels, minlength=len(source.classes))
    there = np.flatnonzero(counts)
    if len(there) < 2:
        return []
    found = []
    if single := [source.classes[label] for label in there[counts[there] == 1]]:
        text = f"{counted(len(single), 'class', single)} with one training image"
        judged = source.splits.any()
        hint = "add images" if judged else "it cannot be judged; add images, or a val folder"
        found.append(Finding(False, text, hint))
    most, least = there[counts[there].argmax()], there[counts[there].argmin()]
    if counts[most] >= MANY_TIMES * counts[least]:
        text = (
            f"{source.classes[most]!r} has {counts[most]:,} training images,"
            f" {source.classes[least]!r} has {counts[least]:,}"
        )
        hint = "accuracy will favour the large classes: read mean class accuracy"
        found.append(Finding(False, text, hint))
    return found


def _duplicates(source: ImageSource, duplicates: Sequence[Sequence[int]]) -> list[Finding]:
    leaks, contradictions, repeats = [], [], []
    for rows in duplicates:
        # One of each split or class shows more than three of the same.
        splits = {int(source.splits[row]): row for row in reversed(rows)}
        labels = {int(source.labels[row]): row for row in reversed(rows)}
        if len(splits) > 1:
            leaks.append(sorted(splits.values()))
        if len(labels) > 1:
            contradictions.append(sorted(labels.values()))
        if len(splits) == len(labels) == 1:
            repeats.append(rows)
    where = "more than once in the same class" if source.classes else "more than once"
    # Where part of each class is held out, a copy may be on either side.
    split = bool(source.splits.any())
    advice = "" if split or not source.classes else "keep one: a copy may be held out to judge"
    found = []
    for groups, wrong, what, hint in (
        (leaks, True, "in more than one split", "keep each in one split: accuracy would lie"),
        (contradictions, True, "in more than one class", "keep each in the class it shows"),
        (repeats, False, where, advice),
    ):
        if groups:
            example = " = ".join(source.record(row).path for row in groups[0][:3])
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
    hint = "training leaves them out, features keep their rows as NaN; --out F.csv lists them"
    return [*found, Finding(False, text, hint)]


def _sideways(looks: Sequence[Look]) -> list[Finding]:
    turned = sum("EXIF orientation" in one.remark for one in looks)
    if not turned:
        return []
    verb = "says which way it was" if turned == 1 else "say which way they were"
    text = f"{counted(turned, 'image')} {verb} held (EXIF)"
    return [Finding(False, text, "finetune turns them upright, the others with --exif apply")]


def _tiny(source: ImageSource, looks: Sequence[Look]) -> list[Finding]:
    tiny = [k for k in looks if not k.reason and min(k.width, k.height) < TINY]
    if not tiny:
        return []
    first = tiny[0]
    text = (
        f"{counted(len(tiny), 'image')} with a side below {TINY} pixels, e.g."
        f" {source.record(first.row).path}: {first.width} × {first.height}"
    )
    return [Finding(False, text, "they are enlarged to 256 pixels: use larger originals")]


def _gifs(source: ImageSource, looks: Sequence[Look]) -> list[Finding]:
    gifs = [one for one in looks if one.format == "GIF"]
    if not 0 < len(gifs) <= FEW_GIFS * len(looks):
        return []
    text = f"{counted(len(gifs), 'GIF')} among photos, e.g. {source.record(gifs[0].row).path}"
    return [Finding(False, text, "look at it: a placeholder is no photo")]


def _folders(place: Path) -> list[Path]:
    return sorted(p for p in _in(place) if p.is_dir() and not p.name.startswith("."))


def _in(place: Path) -> list[Path]:
    try:
        return list(place.iterdir())
    except OSError:
        return []
