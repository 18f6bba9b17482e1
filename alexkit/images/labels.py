"""From what sources call their classes to names in order and a label for each row."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.images.files import SPLIT_ORDER, SPLIT_WORDS, counted
from alexkit.images.source import NO_LABEL, in_splits, stored_text

_NUMBER = re.compile(r"[0-9]{1,18}")
"""A position in a list; a longer one is a name made of digits."""


def numbered(
    names: Sequence[str | None], why: str = ""
) -> tuple[list[str], npt.NDArray[np.int32], list[str]]:
    """Classes sorted by code point, each row's label, and a note of those without one.

    Args:
        names: the class of each row; None = no label.
        why: rows have none, for the note.
    """
    classes = sorted({name for name in names if name is not None})
    label_of: dict[str | None, int] = {name: label for label, name in enumerate(classes)}
    labels = np.array([label_of.get(name, NO_LABEL) for name in names], np.int32)
    without = int((labels == NO_LABEL).sum()) if classes else 0
    told = f"{counted(without, 'image')} without a label{why}"
    return classes, labels, [told] if without else []


def number_labels(
    names: Sequence[str | None],
) -> tuple[tuple[str, ...], npt.NDArray[np.int32], list[str]]:
    """Classes sorted by code point, and each row's label.

    Where all names are numbers they are filled up with zeros, ``7`` to ``007``, so that the
    order as text is the order as numbers: shards store positions in a list of classes, and
    those keep their meaning.

    Args:
        names: the class of each row; None = no label.

    Returns:
        The K classes, (N) int32 labels, and notes.
    """
    # What each is called here; they are few among many rows.
    called = {name: stored_text(name) for name in set(names) if name is not None}
    notes: list[str] = []
    if called and all(_NUMBER.fullmatch(name) for name in called):
        width = len(str(max(map(int, called))))
        if any(len(name) != width for name in called):
            notes.append(f"classes are numbers: named {0:0{width}d}, {1:0{width}d}, … in order")
        called = {name: f"{int(name):0{width}d}" for name in called}
    classes, labels, unlabelled = numbered([name and called[name] for name in names])
    return tuple(classes), labels, notes + unlabelled


def missing_notes(
    classes: Sequence[str], labels: npt.NDArray[np.int32], splits: npt.NDArray[np.uint8]
) -> list[str]:
    """Tells which splits have no image of some class that another one has."""
    notes = []
    for split in SPLIT_ORDER:
        inside = labels[in_splits(splits, split) & (labels != NO_LABEL)]
        if split is not Split.NONE and len(inside):
            absent = np.setdiff1d(np.arange(len(classes)), inside)
            if len(absent):
                names = [classes[label] for label in absent]
                told = counted(len(absent), "class", names)
                notes.append(f"{split.value} has no image of {told}")
    return notes


def split_in(name: str) -> Split:
    """The split that a shard's name speaks of: ``imagenet-train-000.tar``."""
    words = re.split(r"[^a-z]+", name.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), Split.NONE)
