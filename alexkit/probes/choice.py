"""Which C: chosen inside the training rows, for every probe and protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from alexkit.probes.kept import Kept
from alexkit.probes.kinds import fit_probe
from alexkit.probes.metrics import area_ap, confusion, mean_class_accuracy, predictions
from alexkit.probes.objective import Array, Problems, Signs
from alexkit.probes.progress import Progress
from alexkit.probes.protocols import CLIP_STEPS, ProtocolRecord
from alexkit.probes.rows import Part, mean_square
from alexkit.probes.solver import Solver
from alexkit.probes.splits import Rows, inner_folds, stratified_folds
from alexkit.probes.svm import Labels, class_signs

DECADES = (-2, -1, 0, 1, 2)
"""C is 10 to the power of these, in units of 1 / mean ‖x‖² rounded to a power of ten."""
SEARCH_GAP = 1e-3
"""Relative duality gap of the fits that only rank the C."""
SIXTH = 6
"""DeCAF's 25 that train and 5 that judge, of 30 a class (section 4.1)."""
NOTHING = Kept()
TENTH = 10
"""The share of the training rows that judges where there are no val rows, as in DINOv2."""


@dataclass(frozen=True)
class Inside:
    """How the training rows are parted to choose C.

    Attributes:
        fold: (n) the fold of each training row.
        judged: the folds that are left out, one after another, and judged by.
    """

    fold: Rows
    judged: tuple[int, ...]


@dataclass(frozen=True)
class Choice:
    """What came of it.

    Attributes:
        grid: C -> score, the mean over folds (and classes); ascending C.
        c: (K) chosen for each class, of equal scores the smallest; all equal but where each
            class has its own.
    """

    grid: dict[float, float]
    c: Array


def part_inside(
    y: Labels | None, n: int, val: Rows, record: ProtocolRecord, seed: int
) -> Inside:
    """Parts n training rows as the protocol has it.

    Args:
        y: (n) labels, or None where a row may have several: folds are not stratified then.
        val: which of the training rows are the protocol's validation rows.
    """
    if record.inside in ("own", "val") and val.size:
        fold = np.ones(n, np.int64)
        fold[val] = 0
        return Inside(fold, (0,))
    if y is None:
        fold = np.random.default_rng(seed).permutation(n) % 3
        return Inside(fold, (0, 1, 2))
    if record.inside in ("folds", "own"):
        count = inner_folds(y)
        return Inside(stratified_folds(y, count, seed), tuple(range(count)))
    share = SIXTH if record.inside == "sixth" else TENTH
    return Inside(stratified_folds(y, share, seed), (0,))


def grid_of(x: Part | Array, record: ProtocolRecord) -> tuple[float, ...]:
    """The protocol's C, ascending; or :data:`DECADES` around 1 / mean ‖x‖².

    Raises:
        DataError: every row is zero.
    """
    size = mean_square(x)
    if record.grid:
        return tuple(sorted(record.grid))
    if record.probe == "knn":
        return (1.0,)
    centre = -round(math.log10(size))
    return tuple(float(f"1e{centre + decade}") for decade in DECADES)


def choose_c(
    x: Part | Array,
    y: Labels | None,
    signs: Signs,
    record: ProtocolRecord,
    inside: Inside,
    *,
    progress: Progress | None = None,
    kept: Kept = NOTHING,
) -> Choice:
    """C for (n, d) training rows, by them alone.

    Args:
        y: (n) labels from 0, or None where a row may have several.
        signs: (n, K), see :class:`alexkit.probes.objective.Problems`.
        progress: told of each fit.
        kept: where the score of each C is kept, and whence it is taken.

    Raises:
        DataError: every row is zero.
    """
    grid, classes = grid_of(x, record), signs.shape[1]
    progress = progress or Progress()
    if not _searches(y, record):
        return Choice({}, np.full(classes, grid[len(grid) // 2]))
    score: SvmScore | ProbeScore
    if record.probe == "svm":
        score = SvmScore(x, y, signs, record, inside, len(grid), progress)
    else:
        assert y is not None
        score = ProbeScore(x, y, record, inside)
    fits = len(inside.judged) * fits_at_once(y, signs, record)
    found: dict[float, Array] = {}
    if saved := kept.load():
        found = dict(zip(saved["c"].tolist(), saved["scores"], strict=True))
        score.terms = saved.get("terms")
        progress.advance(fits * len(found))

    def look(c: float) -> None:
        if c not in found:
            found[c] = score(c)
            progress.advance(fits)
            terms = {} if score.terms is None else {"terms": score.terms}
            scores = np.stack(list(found.values()))
            kept.store(c=np.array(list(found)), scores=scores, **terms)

    for c in grid:
        look(c)
    step = grid[1] / grid[0]
    while record.halving and step > 10 ** (1.01 / CLIP_STEPS):
        step = math.sqrt(step)
        best = _best(found)[0]
        for c in (best / step, best * step):
            if grid[0] <= c <= grid[-1]:
                look(float(f"{c:.6g}"))
    means = {c: float(np.nanmean(found[c])) for c in sorted(found)}
    if record.per_class:
        return Choice(means, _best(found))
    return Choice(
        means, np.full(classes, _best({c: np.array([m]) for c, m in means.items()})[0])
    )


def _searches(y: Labels | None, record: ProtocolRecord) -> bool:
    """Whether there is more than one C, and of each class a row to fit and one to judge."""
    smallest = np.bincount(y)[np.unique(y)].min() if y is not None else 2
    return record.probe != "knn" and len(record.grid) != 1 and bool(smallest > 1)


def fits_at_once(y: Labels | None, signs: Signs, record: ProtocolRecord) -> int:
    """How many problems the rows are at one C: two classes are one, all are to one softmax."""
    classes: int = signs.shape[1]
    if y is None or record.per_class:
        return classes
    classes = np.unique(y).size
    return classes if record.probe in ("svm", "hinge", "ridge") and classes > 2 else 1


def fits_in_all(y: Labels | None, signs: Signs, record: ProtocolRecord, inside: Inside) -> int:
    """How many fits it takes to choose C and to fit all rows; at most, where steps of C are
    halved."""
    tried = 0
    if _searches(y, record):
        tried = len(record.grid) or len(DECADES)
    if tried and record.halving:
        decades = math.log10(record.grid[1] / record.grid[0])
        tried += 2 * math.ceil(math.log2(decades * CLIP_STEPS))
    return (tried * len(inside.judged) + 1) * fits_at_once(y, signs, record)


def _best(found: dict[float, Array]) -> Array:
    """Of each score the C of the largest, of equal ones the smallest."""
    tried = sorted(found)
    table = np.nan_to_num(np.stack([found[c] for c in tried]), nan=-1.0)
    return np.asarray(np.array(tried)[table.argmax(axis=0)], np.float64)


class SvmScore:
    """Scores of a C: all folds and classes at once, from the solution of the C before.

    Attributes:
        terms: that solution, in the solver's terms; None before the first.
    """

    def __init__(
        self,
        x: Part | Array,
        y: Labels | None,
        signs: Signs,
        record: ProtocolRecord,
        inside: Inside,
        count: int,
        progress: Progress,
    ) -> None:
        self.x, self.y, self.record, self.inside = x, y, record, inside
        self.labels, self.signs = np.arange(signs.shape[1]), signs
        self.terms: Array | None = None
        if y is not None and not record.per_class:
            self.labels, self.signs = class_signs(y)
        factors = factors_of(self.signs.shape[1], record)
        whole = Problems.of(self.signs, 1.0, folds=inside.fold, factors=factors)
        self.problems = whole.some(np.flatnonzero(np.isin(whole.held_out, inside.judged)))
        self.count, self.report = count, progress.solver(len(self.problems))

    @cached_property
    def solver(self) -> Solver:
        """Made when the first C is to be scored."""
        problems = self.count * len(self.problems)
        return Solver(self.x, problems=problems, report=self.report)

    def __call__(self, c: float) -> Array:
        """(1) the score, or (K) where each class has its own C."""
        problems = self.problems.at(c)
        self.terms = self.solver.solve(problems, gap=SEARCH_GAP, start=self.terms).terms
        judged, found = self.inside.judged, []
        for k, of_fold in zip(judged, np.split(self.terms, len(judged)), strict=True):
            outside = np.flatnonzero(self.inside.fold == k)
            values = self.solver.decisions(of_fold, outside).T
            if self.record.per_class:
                found.append(class_aps(values, self.signs[outside], area_ap))
            else:
                assert self.y is not None
                found.append(_agreement(values, self.labels, self.y, outside, self.record))
        return _mean_over(found)


class ProbeScore:
    """Scores of a C by other probes, each fitted from the beginning."""

    terms: Array | None = None

    def __init__(
        self, x: Part | Array, y: Labels, record: ProtocolRecord, inside: Inside
    ) -> None:
        self.x, self.y, self.record, self.inside = np.asarray(x[:]), y, record, inside

    def __call__(self, c: float) -> Array:
        """(1) the score."""
        found = []
        for k in self.inside.judged:
            outside = self.inside.fold == k
            x, y = self.x[~outside], self.y[~outside]
            probe = fit_probe(self.record.probe, x, y, c, gap=SEARCH_GAP)
            values, rows = probe.scores(self.x[outside]), np.flatnonzero(outside)
            found.append(_agreement(values, probe.labels, self.y, rows, self.record))
        return _mean_over(found)


def _agreement(
    values: Array, labels: Labels, y: Labels, rows: Rows, record: ProtocolRecord
) -> Array:
    """(1) the score of some rows' decision values, one column a label."""
    classes = int(y.max()) + 1
    if values.shape[1] == 1 and labels.size == 2:
        values = np.concatenate([-values, values], axis=1)
    scores = np.full((rows.size, classes), -np.inf)
    scores[:, labels] = values
    table = confusion(y[rows], predictions(scores), classes)
    if record.metric == "accuracy":
        return np.array([np.trace(table) / table.sum()])
    return np.array([mean_class_accuracy(table)])


def factors_of(problems: int, record: ProtocolRecord) -> Array:
    """(K, 2) what C is multiplied by for the other rows and for the class's own."""
    return np.tile([1.0, record.positive], (problems, 1))


def class_aps(
    scores: Array, signs: Signs, ap: Callable[[Array, npt.NDArray[np.bool_]], float]
) -> Array:
    """(K) average precision of (n, K) scores over the rows whose sign is not 0."""
    return np.array(
        [
            ap(scores[signs[:, k] != 0, k], signs[signs[:, k] != 0, k] > 0)
            for k in range(signs.shape[1])
        ]
    )


def _mean_over(found: Sequence[Array]) -> Array:
    """The mean of each entry over those that are numbers."""
    table = np.stack(found)
    known = np.isfinite(table)
    total = np.where(known, table, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
