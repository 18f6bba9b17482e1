"""How features are judged: what is fitted, chosen and scored, and in which order.

Nothing is ever chosen on test rows. For each split the order is: fit the normalisation on
the training rows; choose C inside the training rows; fit on all of them; score the test rows,
once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.errors import DataError
from alexkit.events import Note, Reporter, Warned, silent
from alexkit.probes.choice import (
    NOTHING,
    SEARCH_GAP,
    Choice,
    Inside,
    choose_c,
    class_aps,
    factors_of,
    fits_at_once,
    fits_in_all,
    part_inside,
)
from alexkit.probes.kept import Kept
from alexkit.probes.kinds import Probe, fit_probe
from alexkit.probes.leaks import NEAR, Leaks, find_leaks
from alexkit.probes.metrics import (
    area_ap,
    confusion,
    eleven_point_ap,
    mean_class_accuracy,
    per_class,
    predictions,
    top_k,
)
from alexkit.probes.norms import FittedNorm, Norm
from alexkit.probes.objective import Array, Problems, Signs, one_vs_rest
from alexkit.probes.outcomes import margins
from alexkit.probes.progress import Progress
from alexkit.probes.protocols import ProtocolRecord
from alexkit.probes.rows import (
    Features,
    Part,
    blocks,
    coordinates,
    inner_products,
    row_keys,
)
from alexkit.probes.solver import GRAM_ROWS, Solver, regime_of
from alexkit.probes.splits import Division, check_division, counted, divide
from alexkit.probes.svm import Labels, LinearModel, fit_linear_svm

FINAL_GAP = 1e-6
"""Relative duality gap of the fits that are scored,"""
STREAMED_GAP = 1e-4
"""and of those whose rows are read in blocks: each step reads all of them twice, and a
hundredth of the gap takes about twice the steps."""
IN_MEMORY = 1 << 30
"""Bytes of training rows in float64 above which the solver reads them in blocks."""


@dataclass(frozen=True)
class Task:
    """What is to be judged, whatever the layer.

    Attributes:
        record: the protocol.
        classes: K names.
        y: (n) labels from 0, or None where a row may have several.
        signs: (n, K) int8: has the class, has it not, or 0: not to be counted.
        divisions: the splits.
        seed: of what is drawn inside the training rows.
        name: what a row is called.
    """

    record: ProtocolRecord
    classes: Sequence[str]
    y: Labels | None
    signs: Signs
    divisions: Sequence[Division]
    seed: int = 0
    name: Callable[[int], str] = field(default=lambda row: f"row {row}")


@dataclass(frozen=True)
class SplitResult:
    """What one :class:`Division` gave.

    Attributes:
        choice: how C was chosen.
        norm, model: fitted on all training rows.
        table: (K, K) counts, true class down; None where a row may have several classes, and
            so are ``accuracy``, ``mean_class_accuracy``, ``top5``, ``right``, ``predicted``
            and ``margin``.
        per_class: (K) share of right test rows, or average precision (area) where a row may
            have several; NaN for a class without test rows.
        map: mean average precision, by area and by eleven points.
        right: (test rows) whether the class was predicted.
        predicted: (test rows) int64, the class that was.
        margin: (test rows) see :func:`alexkit.probes.outcomes.margins`.
    """

    division: Division
    choice: Choice
    norm: FittedNorm
    model: Probe
    per_class: Array
    map: tuple[float, float]
    table: npt.NDArray[np.int64] | None = None
    accuracy: float | None = None
    mean_class_accuracy: float | None = None
    top5: float | None = None
    right: npt.NDArray[np.bool_] | None = None
    predicted: Labels | None = None
    margin: Array | None = None

    @property
    def gap(self) -> float:
        """The certified relative duality gap of the model; 0 where none is known."""
        return getattr(self.model, "gap", None) or 0.0


@dataclass(frozen=True)
class LayerResult:
    """What one layer gave.

    Attributes:
        turned: (n, n) the coordinates that the models are in, or None: the features' own.
    """

    task: Task
    splits: Sequence[SplitResult]
    leaks: Leaks
    turned: Array | None
    seconds: float


def judge_layer(
    x: Features, task: Task, report: Reporter = silent, kept: Kept = NOTHING
) -> LayerResult:
    """Looks for leaks, then judges every split; both told to ``report``.

    Args:
        x: (n, d) of any float type.
        kept: where the scores of each C are kept, and whence they are taken.

    Raises:
        DataError: rows are not finite, or all zero.
    """
    began = time.perf_counter()
    keys, broken = row_keys(x)
    if broken.size:
        raise DataError(
            f"{task.name(int(broken[0]))} of the features is not all finite numbers",
            hint="leave such rows out; alexkit's own files mark them, and matrix() does",
        )
    turned = None
    if Norm.parse(task.record.norm).turns and x.shape[0] <= min(x.shape[1], GRAM_ROWS):
        turned = x = coordinates(inner_products(x))
    leaks = find_leaks(x, task.divisions, keys=keys)
    tell_leaks(leaks, task, report)
    splits = _judge_all(x, task, report, kept)
    worst = max(split.gap for split in splits)
    if worst > SEARCH_GAP:
        report(Warned(f"a solution may be {worst:.1%} above the optimum of its objective"))
    return LayerResult(task, splits, leaks, turned, time.perf_counter() - began)


def tell_leaks(leaks: Leaks, task: Task, report: Reporter) -> None:
    """One line: how many test rows a training row gives away, and the first."""
    if not len(leaks.pairs):
        report(Note(f"no test row equals a training row, or is near one (cosine {NEAR})"))
        return
    test, train = (task.name(int(row)) for row in leaks.pairs[0])
    report(
        Warned(
            f"test rows that equal a training row: {leaks.identical.size}, near one (cosine "
            f"{NEAR} or more): {leaks.near.size}; the first: {test} and {train}"
        )
    )


def judge(
    x: Features,
    task: Task,
    division: Division,
    progress: Progress | None = None,
    kept: Kept = NOTHING,
) -> SplitResult:
    """Normalises, chooses C, fits and scores one division; ``progress`` is told of each fit."""
    record, progress = task.record, progress or Progress()
    part = Part.fitted(x, division.train, record)
    train: Part | Array = part
    if math.prod(part.shape) * 8 <= IN_MEMORY:
        train = np.asarray(part[:], np.float64)
    y = None if task.y is None else task.y[division.train]
    signs = task.signs[division.train]
    inside = parted(task, division)
    choice = choose_c(train, y, signs, record, inside, progress=progress, kept=kept)
    fits = fits_at_once(y, signs, record)
    model = fit(train, y, signs, record, choice.c, progress.solver(fits))
    progress.advance(fits)
    test = Part(x, division.test, part.norm)
    scores = score(model, test, task, division)
    return SplitResult(division, choice, part.norm, model, **scores)


def parted(task: Task, division: Division) -> Inside:
    """How the training rows are parted to choose C."""
    y = None if task.y is None else task.y[division.train]
    val = np.searchsorted(division.train, division.val)
    return part_inside(y, division.train.size, val, task.record, task.seed)


def fit(
    x: Part | Array,
    y: Labels | None,
    signs: Signs,
    record: ProtocolRecord,
    c: Array,
    report: Reporter = silent,
) -> Probe:
    """The probe of all (n, d) training rows, at (K) chosen C."""
    if record.per_class:
        solver = Solver(x, problems=signs.shape[1], report=report)
        problems = Problems.of(signs, 1.0, factors=factors_of(signs.shape[1], record))
        found = solver.solve(replace(problems, c=c), gap=final_gap(x))
        weights, bias = solver.weights(found.terms)
        labels, middle = np.arange(signs.shape[1]), float(np.median(c))
        return LinearModel(labels, weights, bias, middle, found.certificate.gap)
    if y is None:
        return _fit_each(np.asarray(x[:]), signs, record, c)
    if record.probe == "svm":
        return fit_linear_svm(x, y, float(c[0]), gap=final_gap(x), report=report)
    return fit_probe(record.probe, np.asarray(x[:]), y, float(c[0]), gap=FINAL_GAP)


def final_gap(x: Part | Array) -> float:
    """The relative duality gap that an SVM of (n, d) rows is fitted to."""
    return FINAL_GAP if regime_of(*x.shape) == "gram" else STREAMED_GAP


def _fit_each(x: Array, signs: Signs, record: ProtocolRecord, c: Array) -> LinearModel:
    """One class against the rest, for each class that has rows on both sides."""
    weights, bias, labels = [], [], []
    for k in range(signs.shape[1]):
        counted_in = signs[:, k] != 0
        own = (signs[counted_in, k] > 0).astype(np.int64)
        if own.any() and not own.all():
            one = fit_probe(record.probe, x[counted_in], own, float(c[k]), gap=FINAL_GAP)
            assert isinstance(one, LinearModel)
            weights.append(one.weights[1])
            bias.append(one.bias[1])
            labels.append(k)
    return LinearModel(np.array(labels), np.stack(weights), np.array(bias), float(c[0]), None)


def score(model: Probe, test: Part, task: Task, division: Division) -> dict[str, Any]:
    """What :class:`SplitResult` tells of the test rows."""
    rows, classes = division.test, len(task.classes)
    scores = np.full((rows.size, classes), -np.inf)
    for part in blocks(*test.shape):
        scores[part, model.labels] = model.scores(test[part])
    aps = class_aps(scores, task.signs[rows], area_ap)
    elevens = class_aps(scores, task.signs[rows], eleven_point_ap)
    means = float(np.nanmean(aps)), float(np.nanmean(elevens))
    if task.y is None:
        return {"map": means, "per_class": aps}
    y, predicted = task.y[rows], predictions(scores)
    table = confusion(y, predicted, classes)
    return {
        "map": means,
        "table": table,
        "accuracy": float(np.trace(table) / table.sum()),
        "mean_class_accuracy": mean_class_accuracy(table),
        "top5": top_k(scores, y, 5),
        "per_class": per_class(table),
        "right": predicted == y,
        "predicted": predicted,
        "margin": margins(scores, y),
    }


def _judge_all(x: Features, task: Task, report: Reporter, kept: Kept) -> list[SplitResult]:
    total = 0
    for part in task.divisions:
        y = None if task.y is None else task.y[part.train]
        total += fits_in_all(y, task.signs[part.train], task.record, parted(task, part))
    progress = Progress(report, total)
    with progress:
        return [
            judge(x, task, part, progress, kept.within(number))
            for number, part in enumerate(task.divisions)
        ]


def single_task(
    y: Labels,
    classes: Sequence[str],
    record: ProtocolRecord,
    *,
    splits: npt.NDArray[np.uint8] | None,
    seed: int,
    divisions: Sequence[Division] = (),
    reserve: int = 0,
) -> Task:
    """The task of rows with one label each, divided by the protocol or as given.

    Raises:
        DataError: the labels do not allow it.
    """
    present = np.unique(y)
    if not present.size:
        raise DataError(
            "no row has both features and a label",
            hint="put the images into one folder a class, or give labels in a list",
        )
    if present.size == 1:
        every = "the only row is" if y.size == 1 else f"all {counted(y.size)} are"
        raise DataError(
            f"{every} of one class, {classes[present[0]]!r}",
            hint="a classifier needs images of two classes or more",
        )
    for part in divisions:
        check_division(y, classes, part, single=True)
    parts = divisions or divide(y, classes, record, splits=splits, seed=seed, reserve=reserve)
    signs = one_vs_rest(y, np.arange(len(classes)))
    return Task(record, classes, y, signs, parts, seed)
