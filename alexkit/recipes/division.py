"""Which images are learnt from and which judge: copies of one image are never parted."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alexkit.choices import Split
from alexkit.errors import DamagedFile, DataError
from alexkit.events import Chosen, Note, Reporter, Warned, silent
from alexkit.images.draws import Rows
from alexkit.images.duplicates import find_duplicates
from alexkit.images.source import NO_LABEL, ImageSource, SizedSource, in_splits
from alexkit.probes.leaks import NEAR, unit_rows
from alexkit.recipes.inputs import Holdout, holdout
from alexkit.reports.tables import save_csv

SPLIT_FILE = "split.csv"
COMPARED = 20_000
"""Images that are compared each with each; of more, only equal bytes are found."""
APART = 0.9
"""The median cosine between images from which features cannot tell copies from others."""
COMPARING_SECONDS = 20.0
FEW = 50
"""Images a class below which one held-out part says little, and folds are advised."""
FOLDS = 5
"""The most that are advised."""


def groups_of(
    source: ImageSource, threads: int, rows: Rows, features: npt.NDArray[np.floating] | None
) -> npt.NDArray[np.int64]:
    """(N) a number for each image, shared by its copies.

    Copies have the same bytes or, where ``features`` are known, (n, d) of ``rows``, a cosine
    of at least :data:`alexkit.probes.leaks.NEAR`: the same image saved again or a little
    smaller.
    """
    pairs: list[tuple[int, int]] = []
    if isinstance(source, SizedSource):
        found = find_duplicates(
            source, known={}, threads=threads, seconds=COMPARING_SECONDS, report=silent
        )
        pairs += [(group[0], row) for group in found.groups for row in group[1:]]
    if features is not None and len(rows) <= COMPARED:
        unit = unit_rows(np.asarray(features, np.float32))
        # Before it has learnt anything a network makes nearly the same of every image.
        typical = float(np.median(unit[:: max(1, len(rows) // 256)] @ unit.T))
        for first in range(0, len(rows), 1024) if typical < APART else ():
            a, b = np.nonzero(unit[first : first + 1024] @ unit.T >= NEAR)
            pairs += [
                (int(rows[first + i]), int(rows[j]))
                for i, j in zip(a, b, strict=True)
                if i != j
            ]
    n = len(source)
    one, other = np.array(pairs, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(one.size), (one, other)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def divide(
    source: ImageSource,
    groups: npt.NDArray[np.int64],
    *,
    fraction: float,
    seed: int,
    report: Reporter,
) -> Holdout:
    """As :func:`alexkit.recipes.inputs.holdout`, but copies stay together.

    An image that is in two classes is learnt from and never judges; a copy of an image that a
    source's own split judges by is told.

    Raises:
        DataError: as ``holdout``.
    """
    plain = holdout(source, fraction=fraction, seed=seed, report=silent)
    labels = np.asarray(source.labels)
    torn = _in_two_classes(source, groups, report)
    if _own_split(source, plain):
        _check_own(source, plain, groups, report)
        return plain
    rows = np.union1d(plain.train, plain.judged)
    counts = {int(k): int((labels[plain.judged] == k).sum()) for k in np.unique(labels[rows])}
    rng = np.random.default_rng(seed)
    held: list[int] = []
    for label, count in counts.items():
        own = rows[(labels[rows] == label) & ~np.isin(groups[rows], torn)]
        held += _whole_groups(own, groups, count, rng, int((labels[rows] == label).sum()))
    judged = np.sort(np.array(held, np.int64))
    if not len(judged):
        raise DataError(
            f"{source.root} has no image that could be held out: each class is one image and"
            " its copies",
            hint="add images, or a val folder beside train",
        )
    report(
        Chosen(
            "held out",
            f"{len(judged)} images",
            f"{fraction:.0%} of each class, seed {seed}, copies kept together",
        )
    )
    return Holdout(np.setdiff1d(rows, judged), judged, Split.VAL)


def check_learnt(source: ImageSource, rows: Holdout) -> None:
    """That each class that is judged is learnt.

    Raises:
        DataError: one is not.
    """
    labels = np.asarray(source.labels)
    unseen = np.setdiff1d(labels[rows.judged], labels[rows.train])
    if unseen.size:
        raise DataError(
            f"class {source.classes[unseen[0]]!r} has images in {rows.split.value} and none"
            " in train",
            hint="add images of it to train, or leave it out",
        )


def folds_of(
    labels: npt.NDArray[np.integer], groups: npt.NDArray[np.int64], folds: int, seed: int
) -> npt.NDArray[np.int64]:
    """(n) the fold of each row, from 0: stratified, copies together.

    Each class's groups, in random order, go one by one to the fold that has fewest of it.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(labels.size, -1, np.int64)
    total = np.zeros(folds, np.int64)
    for label in np.unique(labels):
        own = np.zeros(folds, np.int64)
        for group in rng.permutation(np.unique(groups[labels == label])):
            rows = np.flatnonzero((groups == group) & (fold < 0))
            if rows.size:
                chosen = int(np.lexsort((total, own))[0])
                fold[rows] = chosen
                own[chosen] += rows.size
                total[chosen] += rows.size
    return fold


def parts_of(
    source: ImageSource, groups: npt.NDArray[np.int64], folds: int, seed: int
) -> list[Holdout]:
    """Every labelled image judged once, by what was learnt from the other folds.

    Raises:
        DataError: a class has fewer images than folds, so that a fold could not learn it.
    """
    labels = np.asarray(source.labels)
    rows = np.flatnonzero(labels != NO_LABEL)
    counts = np.bincount(labels[rows], minlength=len(source.classes))
    few = np.flatnonzero((counts > 0) & (counts < folds))
    if few.size:
        raise DataError(
            f"class {source.classes[few[0]]!r} has {counts[few[0]]} images, fewer than"
            f" {folds} folds",
            hint="use fewer --folds, add images, or leave the class out",
        )
    fold = folds_of(labels[rows], groups[rows], folds, seed)
    return [Holdout(rows[fold != k], rows[fold == k], Split.VAL) for k in range(folds)]


def tell_counts(
    source: ImageSource, rows: Holdout, folds: int | None, report: Reporter
) -> None:
    """Advises folds where a class has few images, and tells classes of one image."""
    labels = np.asarray(source.labels)
    counts = np.bincount(labels[rows.train], minlength=len(source.classes))
    every = counts + np.bincount(labels[rows.judged], minlength=len(source.classes))
    single = [source.classes[k] for k in np.flatnonzero(every == 1)]
    if single:
        shown = ", ".join(map(repr, single[:3])) + (", …" if len(single) > 3 else "")
        some = "class has" if len(single) == 1 else "classes have"
        report(Warned(f"{len(single)} {some} one image, which cannot judge: {shown}"))
    fewest = int(every[every > 0].min())
    if folds is None and 1 < fewest < FEW and _own_share(source):
        report(
            Note(
                f"{fewest} images in the smallest class: one held-out part says little, and"
                f" --folds {min(fewest, FOLDS)} gives a mean and its spread"
            )
        )


def write_split(path: Path, source: ImageSource, rows: Holdout) -> None:
    """The rows as ``path,label,split``, a list that alexkit takes as DATA."""
    divided = (
        (record.path, source.classes[record.label], split.value)
        for part, split in ((rows.train, Split.TRAIN), (rows.judged, rows.split))
        for record in map(source.record, part.tolist())
    )
    save_csv(path, ("path", "label", "split"), divided)


def learnt_from(path: Path, source: ImageSource) -> npt.NDArray[np.bool_]:
    """(N) which images of ``source`` a division that :func:`write_split` wrote has as
    ``train``, by their paths.

    Raises:
        DamagedFile: it is no such file.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            lines = list(csv.DictReader(file))
        learnt = {line["path"] for line in lines if line["split"] == Split.TRAIN.value}
    except (OSError, KeyError, csv.Error) as problem:
        raise DamagedFile(
            f"{path} cannot be read as a division of images: {problem!r}",
            hint="it is part of the run; name what judges with --split all",
        ) from problem
    found = (source.record(row).path in learnt for row in range(len(source)))
    return np.fromiter(found, bool, len(source))


def _own_split(source: ImageSource, rows: Holdout) -> bool:
    return bool(in_splits(source.splits[rows.judged], rows.split).all())


def _own_share(source: ImageSource) -> bool:
    return not in_splits(source.splits, Split.VAL, Split.TEST).any()


def _in_two_classes(
    source: ImageSource, groups: npt.NDArray[np.int64], report: Reporter
) -> npt.NDArray[np.int64]:
    """Groups with images of more than one class, told."""
    labels = np.asarray(source.labels)
    shared = np.flatnonzero(np.bincount(groups) > 1)
    torn = []
    for group in shared.tolist():
        rows = np.flatnonzero((groups == group) & (labels != NO_LABEL))
        if len(np.unique(labels[rows])) > 1:
            torn.append(group)
            named = sorted({source.record(int(row)).path for row in rows})
            report(Warned(f"one image in several classes: {' = '.join(named[:3])}"))
    if torn:
        report(Note("they are trained on as they are and judge nothing; `alexkit check` helps"))
    return np.array(torn, np.int64)


def _check_own(
    source: ImageSource, rows: Holdout, groups: npt.NDArray[np.int64], report: Reporter
) -> None:
    copies = int(np.isin(groups[rows.judged], groups[rows.train]).sum())
    if copies:
        report(
            Warned(
                f"{copies} of {len(rows.judged)} images in {rows.split.value} are copies of"
                " images in train: the accuracy is too good by as much"
            )
        )


def _whole_groups(
    rows: Rows,
    groups: npt.NDArray[np.int64],
    count: int,
    rng: np.random.Generator,
    every: int,
) -> Sequence[int]:
    """About ``count`` of a class's rows, in whole groups, never the last ones to learn from."""
    held: list[int] = []
    for group in rng.permutation(np.unique(groups[rows])).tolist():
        own = rows[groups[rows] == group]
        if len(held) + len(own) <= max(count, 1) and len(held) + len(own) < every:
            held += own.tolist()
    return held
