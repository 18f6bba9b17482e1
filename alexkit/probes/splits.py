"""Which rows train and which test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.images.source import in_splits
from alexkit.probes.protocols import FOLDS, ProtocolRecord

Labels = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]

INNER_FOLDS = 3
"""Folds in which C is chosen, as in VISSL (Goyal et al. 2019)."""


HELD_OUT = 5
"""``holdout`` without a split of the file's own tests one row in so many of each class."""
NO_ROWS: Rows = np.empty(0, np.int64)


@dataclass(frozen=True)
class Division:
    """One way to part the rows: indices that train, others that test, and, of those that
    train, the ones by which C is to be chosen (none: parts of the training rows)."""

    train: Rows
    test: Rows
    val: Rows = field(default_factory=lambda: NO_ROWS)


def divide(
    y: Labels,
    classes: Sequence[str],
    record: ProtocolRecord,
    *,
    splits: npt.NDArray[np.uint8] | None,
    seed: int,
    reserve: int = 0,
) -> list[Division]:
    """The divisions of a protocol.

    Args:
        y: (n) labels from 0.
        splits: (n) codes into :data:`alexkit.images.source.SPLITS`. ``holdout`` goes by them,
            ``few-shot`` where they name a test part. Rows of val beside rows of test train
            where the protocol has a use for them, and else are left out.
        reserve: as many training rows of a class as the largest of several ``few-shot``
            divisions takes: those are never tested, so that all have the same test rows.

    Raises:
        DataError: a class has too few rows, or rows of a needed split are missing.
    """
    if record.parts == "kfold":
        return _folds(y, classes, seed)
    trains = record.inside in ("own", "val") or record.several
    if splits is None or not splits.any():
        rows = np.arange(y.size)
        if record.parts == "holdout":
            held = _fifth(y, classes, seed)
            parts = [Division(np.setdiff1d(rows, held), held)]
        else:
            parts = _few_shot(y, classes, record, (rows, rows), seed, reserve)
    else:
        own = own_split(splits, with_val=trains)
        parts = [own]
        if record.parts == "few-shot":
            parts = _few_shot(y, classes, record, (own.train, own.test), seed, reserve)
    for part in parts:
        check_division(y, classes, part, single=record.shots == 1)
    return parts


def _folds(y: Labels, classes: Sequence[str], seed: int) -> list[Division]:
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


def _fifth(y: Labels, classes: Sequence[str], seed: int) -> Rows:
    """Of each class round(n / 5) rows, but at least one and never all but one."""
    rng = np.random.default_rng(seed)
    held = []
    for label in np.unique(y):
        rows = rng.permutation(np.flatnonzero(y == label))
        if rows.size < 3:
            raise DataError(
                f"class {classes[label]!r} has {counted(rows.size)}: one is tested, and two "
                "must train",
                hint="add images to it, or leave it out",
            )
        held.append(rows[: max(1, round(rows.size / HELD_OUT))])
    return np.sort(np.concatenate(held))


def _few_shot(
    y: Labels,
    classes: Sequence[str],
    record: ProtocolRecord,
    pools: tuple[Rows, Rows],
    seed: int,
    reserve: int,
) -> list[Division]:
    """``shots`` rows of each class from one pool, and the rest of the other, at most
    ``test_most`` a class; a larger number of shots only adds rows to a smaller one's."""
    shots, reserve = record.shots, max(record.shots, reserve)
    train_pool, test_pool = pools
    same = train_pool is test_pool
    for label in np.unique(y[train_pool]):
        size, need = int((y[train_pool] == label).sum()), reserve + same
        if size < need:
            raise DataError(
                f"class {classes[label]!r} has {counted(size)} to train on, and {reserve} "
                f"shots take {need}" + (" with one to test" if same else ""),
                hint="use fewer --shots, add images to it, or leave it out",
            )
    parts = []
    for repeat in range(record.repeats):
        rng = np.random.default_rng((seed, repeat))
        train, test = [], []
        for label in np.unique(y[train_pool]):
            rows = rng.permutation(train_pool[y[train_pool] == label])
            train.append(rows[:shots])
            others = rows[reserve:] if same else test_pool[y[test_pool] == label]
            if record.test_most and others.size > record.test_most:
                others = rng.permutation(others)[: record.test_most]
            test.append(others)
        parts.append(Division(np.sort(np.concatenate(train)), np.sort(np.concatenate(test))))
    return parts


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


def divide_several(
    n: int, splits: npt.NDArray[np.uint8] | None, *, seed: int
) -> list[Division]:
    """The division of rows that may have several classes: the file's own, or a fifth, drawn
    from all rows, is held out.

    Raises:
        DataError: there are too few rows, or rows of a needed split are missing.
    """
    if splits is not None and splits.any():
        return [own_split(splits, with_val=True)]
    if n < HELD_OUT:
        raise DataError(f"{counted(n)} cannot be divided", hint="label more images")
    order = np.random.default_rng(seed).permutation(n)
    held = np.sort(order[: n // HELD_OUT])
    return [Division(np.setdiff1d(np.arange(n), held), held)]


def inner_folds(y: Labels) -> int:
    """In how many folds C is chosen: as many as the smallest class has rows, at most 3."""
    return min(INNER_FOLDS, int(np.unique(y, return_counts=True)[1].min()))


def own_split(splits: npt.NDArray[np.uint8], *, with_val: bool) -> Division:
    """Train rows against test rows, or against val rows where there are no test rows.

    Args:
        with_val: whether rows of val train beside rows of test.

    Raises:
        DataError: there are none of either.
    """

    train, val, test = (
        np.flatnonzero(in_splits(splits, split))
        for split in (Split.TRAIN, Split.VAL, Split.TEST)
    )
    if not test.size:
        val, test = NO_ROWS, val
    if not with_val:
        val = NO_ROWS
    for rows, what in ((train, "train"), (test, "val or test")):
        if not rows.size:
            raise DataError(
                f"no labelled row is of a {what} split",
                hint="use --protocol kfold, or data with train/ and val/ folders",
            )
    return Division(np.union1d(train, val), test, val)


def check_division(
    y: Labels, classes: Sequence[str], part: Division, *, single: bool = False
) -> None:
    """Whether a probe can be fitted and judged.

    Args:
        single: whether one training row a class is meant to be enough.

    Raises:
        DataError: a class is tested but not trained on, has one training row, or is alone.
    """
    train, test = part.train, part.test
    counts = np.bincount(y[train], minlength=len(classes))
    unseen = np.setdiff1d(y[test], y[train])
    if unseen.size:
        raise DataError(
            f"class {classes[unseen[0]]!r} is to be tested but has no training rows",
            hint="give it training images, leave it out, or use --protocol kfold",
        )
    alone = np.flatnonzero(counts == 1)
    if alone.size and not single:
        raise DataError(
            f"class {classes[alone[0]]!r} has one training row, and choosing C takes two",
            hint="add training images to it, or leave it out",
        )
    if np.count_nonzero(counts) == 1:
        raise DataError(
            f"all training rows are of one class, {classes[int(counts.argmax())]!r}",
            hint="a classifier needs images of two classes or more",
        )


def counted(count: int) -> str:
    """``1 row``, ``2 rows``."""
    return f"{count} row" if count == 1 else f"{count} rows"
