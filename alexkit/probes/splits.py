"""Which rows train and which test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.images.source import SPLITS

Protocol = Literal["holdout", "kfold"]
Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]

FOLDS = 5
"""Splits of ``kfold``."""
INNER_FOLDS = 3
"""Folds in which C is chosen, as in VISSL (Goyal et al. 2019)."""


@dataclass(frozen=True)
class Division:
    """One way to part the rows: indices that train, and others that test."""

    train: Rows
    test: Rows


def divide(
    y: Labels,
    classes: Sequence[str],
    *,
    protocol: Protocol,
    splits: npt.NDArray[np.uint8] | None,
    seed: int,
) -> list[Division]:
    """The divisions of a protocol, see :func:`alexkit.probes.protocol.evaluate`.

    Raises:
        DataError: a class has too few rows, or rows of a needed split are missing.
    """
    if protocol == "holdout":
        return [_own_split(y, classes, splits)]
    counts = np.bincount(y, minlength=len(classes))
    few = np.flatnonzero((counts > 0) & (counts < FOLDS))
    if few.size:
        name, size = classes[few[0]], counted(int(counts[few[0]]))
        raise DataError(
            f"class {name!r} has {size}, fewer than the {FOLDS} folds",
            hint="add images to it, leave it out, or use --protocol holdout with a split",
        )
    fold = stratified_folds(y, FOLDS, seed)
    return [
        Division(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)
    ]


def stratified_folds(y: Labels, folds: int, seed: int) -> Labels:
    """(n) fold of each row, from 0 to ``folds - 1``.

    The rows of a class are shuffled and dealt round; each class goes on where the one before
    it stopped. So neither a class's rows nor all rows differ by more than one between folds.
    """
    rng = np.random.default_rng(seed)
    fold = np.empty(y.size, np.int64)
    dealt = 0
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        fold[rows] = (dealt + np.arange(rows.size)) % folds
        dealt += rows.size
    return fold


def inner_folds(y: Labels) -> int:
    """In how many folds C is chosen: as many as the smallest class has rows, at most 3."""
    return min(INNER_FOLDS, int(np.unique(y, return_counts=True)[1].min()))


def _own_split(
    y: Labels, classes: Sequence[str], splits: npt.NDArray[np.uint8] | None
) -> Division:
    def of(split: Split) -> Rows:
        if splits is None:
            return np.empty(0, np.int64)
        return np.flatnonzero(splits == SPLITS.index(split))

    train, test = of(Split.TRAIN), of(Split.TEST)
    if not test.size:
        test = of(Split.VAL)
    for rows, what in ((train, "train"), (test, "val or test")):
        if not rows.size:
            raise DataError(
                f"no labelled row is of a {what} split",
                hint="use --protocol kfold, or data with train/ and val/ folders",
            )
    counts = np.bincount(y[train], minlength=len(classes))
    unseen = np.setdiff1d(y[test], y[train])
    if unseen.size:
        raise DataError(
            f"class {classes[unseen[0]]!r} is to be tested but has no training rows",
            hint="give it training images, leave it out, or use --protocol kfold",
        )
    single = np.flatnonzero(counts == 1)
    if single.size:
        raise DataError(
            f"class {classes[single[0]]!r} has one training row, and choosing C takes two",
            hint="add training images to it, or leave it out",
        )
    if np.count_nonzero(counts) == 1:
        raise DataError(
            f"all training rows are of one class, {classes[int(counts.argmax())]!r}",
            hint="a classifier needs images of two classes or more",
        )
    return Division(train, test)


def counted(count: int) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count} row" if count == 1 else f"{count} rows"
