"""How features are judged: which rows train, which test, and what may be chosen where.

Nothing is ever chosen on test rows. For each split the order is: fit the normalisation on
the training rows; choose C by cross-validation inside the training rows; fit on all of them;
score the test rows, once.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from alexkit.errors import DataError, UnknownName
from alexkit.events import (
    Note,
    Reporter,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Warned,
    silent,
)
from alexkit.images.source import NO_LABEL
from alexkit.probes.metrics import (
    confusion,
    mean_class_accuracy,
    per_class,
    predictions,
    top_k,
)
from alexkit.probes.objective import Problems
from alexkit.probes.solver import Solver
from alexkit.probes.splits import (
    FOLDS,
    INNER_FOLDS,
    Division,
    Protocol,
    counted,
    divide,
    inner_folds,
    stratified_folds,
)
from alexkit.probes.svm import LinearModel, class_signs, fit_linear_svm

Norm = Literal["none", "l2", "standardize"]
Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

DECADES = (-2, -1, 0, 1, 2)
"""C is 10 to the power of these, in units of 1 / mean ‖x‖² rounded to a power of ten."""
SEARCH_GAP = 1e-3
"""Relative duality gap of the fits that only rank the C."""
FINAL_GAP = 1e-6
"""Relative duality gap of the fits that are scored."""


@dataclass(frozen=True)
class SplitResult:
    """What one :class:`Division` gave.

    Attributes:
        grid: C -> mean class accuracy in the cross-validation on the training rows.
        c: the C chosen from ``grid``: the best score, of equal ones the smallest C.
        model: fitted on all training rows with ``c``.
        accuracy, mean_class_accuracy, top5: of the test rows.
        per_class: (K) share of right test rows; NaN for a class without test rows.
    """

    division: Division
    grid: dict[float, float]
    c: float
    model: LinearModel
    accuracy: float
    mean_class_accuracy: float
    top5: float
    per_class: Array


def describe(protocol: Protocol, *, norm: Norm, seed: int) -> dict[str, Any]:
    """The protocol in words and numbers, as ``eval.json`` stores it."""
    parts = {
        "holdout": "train rows against the test rows (val rows where there are no test rows)",
        "kfold": f"{FOLDS} stratified folds of all labelled rows",
    }
    return {
        "name": protocol,
        "parts": parts[protocol],
        "classifier": "linear SVM, one class against the rest, squared hinge, "
        "L2 penalty on weights and intercept",
        "norm": norm,
        "C": f"10^k, k in {list(DECADES)}, in units of 1 / mean squared row length of the "
        "training rows, rounded to a power of ten",
        "C_chosen_by": f"mean class accuracy in {INNER_FOLDS}-fold cross-validation "
        "on the training rows",
        "spread": "standard deviation over splits (n - 1); 0 for one split",
        "seed": seed,
    }


def evaluate(
    x: npt.NDArray[Any],
    y: npt.NDArray[Any],
    classes: Sequence[str],
    *,
    protocol: Protocol,
    splits: npt.NDArray[np.uint8] | None = None,
    norm: Norm = "none",
    seed: int = 0,
    report: Reporter = silent,
) -> dict[str, Any]:
    """Judges features with linear SVMs.

    Args:
        x: (n, d) of any float type.
        y: (n) labels from 0 to K - 1, or -1 for rows without one, which are left out.
        classes: K names.
        protocol: ``kfold`` parts all rows; ``holdout`` trains on the rows of the train split
            and tests on those of the test split, or of val where there are no test rows.
        splits: (n) uint8, codes into :data:`alexkit.images.source.SPLITS`; for ``holdout``.
        norm: ``l2`` makes every row of length 1 (rows of zeros stay); ``standardize`` gives
            every column mean 0 and sd 1 over the training rows (constant columns become 0).
        seed: parts the folds. The same seed gives the same result but for ``seconds``.
        report: told of every fit.

    Returns:
        One entry of ``results`` in ``eval.json``, without ``file`` and ``layer``. ``n_train``
        and ``n_test`` are rows per split; ``C`` the one most often chosen; ``cv`` has the
        mean score of each C and in how many splits it was chosen; ``objective_gap`` is the
        largest of the scored models.

    Raises:
        UnknownName: there is no such protocol or normalisation.
        DataError: the rows or labels do not allow this protocol.
    """
    began = time.perf_counter()
    for kind, name, known in (("protocol", protocol, Protocol), ("norm", norm, Norm)):
        if name not in get_args(known):
            raise UnknownName(kind, name, get_args(known))
    labelled = np.flatnonzero(np.asarray(y) != NO_LABEL)
    if 0 < labelled.size < len(y):
        report(Note(f"{len(y) - labelled.size} rows without a label are left out"))
    labels = np.asarray(y, np.int64)[labelled]
    features = np.asarray(x)[labelled]
    _check(features, labels, classes)
    codes = None if splits is None else np.asarray(splits)[labelled]
    divisions = divide(labels, classes, protocol=protocol, splits=codes, seed=seed)
    results = list(_judge_all(features, labels, classes, divisions, norm, seed, report))
    worst = max(result.model.gap or 0.0 for result in results)
    if worst > SEARCH_GAP:
        report(Warned(f"a solution may be {worst:.1%} above the optimum of its objective"))
    return _summary(results, classes, time.perf_counter() - began)


def judge(
    x: npt.NDArray[Any],
    y: Labels,
    division: Division,
    *,
    classes: int,
    norm: Norm,
    seed: int,
    fitted: Callable[[], None] = lambda: None,
) -> SplitResult:
    """Normalises, chooses C, fits and scores one division; ``fitted`` is called a fit.

    Args:
        x: (n, d) of any float type.
        y: (n) labels from 0 to ``classes - 1``.
    """
    train = division.train.size
    rows = normalised(x[division.train], x[division.test], norm)
    x_train, x_test, y_train = rows[:train], rows[train:], y[division.train]

    grid = search_c(x_train, y_train, seed=seed, fitted=fitted)
    c = max(grid, key=lambda value: (grid[value], -value))
    model = fit_linear_svm(x_train, y_train, c, gap=FINAL_GAP)
    fitted()

    scores = _scores(model, x_test, classes)
    table = confusion(y[division.test], predictions(scores), classes)
    return SplitResult(
        division=division,
        grid=grid,
        c=c,
        model=model,
        accuracy=float(np.trace(table) / table.sum()),
        mean_class_accuracy=mean_class_accuracy(table),
        top5=top_k(scores, y[division.test], 5),
        per_class=per_class(table),
    )


def normalised(train: npt.NDArray[Any], test: npt.NDArray[Any], norm: Norm) -> Array:
    """Training rows, then test rows, in float64; everything is fitted on training rows."""
    rows = np.concatenate([train, test]).astype(np.float64)
    if norm == "l2":
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1.0)
    elif norm == "standardize":
        spread = rows[: len(train)].std(axis=0)
        rows -= rows[: len(train)].mean(axis=0)
        rows /= np.where(spread > 0, spread, 1.0)
    return rows


def search_c(
    x: Array, y: Labels, *, seed: int, fitted: Callable[[], None] = lambda: None
) -> dict[float, float]:
    """C -> mean class accuracy, by cross-validation on these (training) rows alone.

    Raises:
        DataError: every row is zero.
    """
    size = float((x**2).sum(axis=1).mean())
    if size == 0.0:
        raise DataError(
            "the features of all training rows are zero",
            hint="look at another layer, or at how these features were made",
        )
    centre = -round(math.log10(size))
    folds = inner_folds(y)
    fold = stratified_folds(y, folds, seed)
    grid: dict[float, float] = {}
    labels, signs = class_signs(y)
    problems = Problems.of(signs, 1.0, folds=fold)
    solver = Solver(x, problems=len(DECADES) * len(problems))
    terms = None
    for decade in DECADES:
        c = float(f"1e{centre + decade}")
        terms, _, _ = solver.solve(problems.at(c), gap=SEARCH_GAP, start=terms)
        grid[c] = _validated(solver, terms, labels, y, fold)
        for _ in range(folds):
            fitted()
    return grid


def _validated(solver: Solver, terms: Array, labels: Labels, y: Labels, fold: Labels) -> float:
    """Mean class accuracy, over folds, of the rows that each left out."""
    count, classes = int(fold.max()) + 1, int(y.max()) + 1
    found = []
    for k, of_fold in enumerate(np.split(terms, count)):
        outside = np.flatnonzero(fold == k)
        values = solver.decisions(of_fold, outside).T
        if labels.size == 2:
            values = np.concatenate([-values, values], axis=1)
        scores = np.full((outside.size, classes), -np.inf)
        scores[:, labels] = values
        table = confusion(y[outside], predictions(scores), classes)
        found.append(mean_class_accuracy(table))
    return float(np.mean(found))


def _judge_all(
    x: npt.NDArray[Any],
    y: Labels,
    classes: Sequence[str],
    divisions: Sequence[Division],
    norm: Norm,
    seed: int,
    report: Reporter,
) -> Iterator[SplitResult]:
    began = time.perf_counter()
    total = sum(len(DECADES) * inner_folds(y[part.train]) + 1 for part in divisions)
    report(StageStarted("probe", total, "fits"))
    done = 0

    def fitted() -> None:
        nonlocal done
        done += 1
        report(StageAdvanced("probe", done))

    for part in divisions:
        yield judge(x, y, part, classes=len(classes), norm=norm, seed=seed, fitted=fitted)
    report(StageFinished("probe", done, time.perf_counter() - began))


def _check(x: npt.NDArray[Any], y: Labels, classes: Sequence[str]) -> None:
    assert x.ndim == 2
    present = np.unique(y)
    if not present.size:
        raise DataError(
            "no row has both features and a label",
            hint="put the images into one folder a class, or give labels in a list",
        )
    assert present[0] >= 0
    assert present[-1] < len(classes)
    if present.size == 1:
        raise DataError(
            f"all {counted(y.size)} are of one class, {classes[present[0]]!r}",
            hint="a classifier needs images of two classes or more",
        )
    broken = np.flatnonzero(~np.isfinite(x).all(axis=1))
    if broken.size:
        raise DataError(
            f"row {broken[0]} of the features is not all finite numbers",
            hint="leave such rows out; alexkit's own files mark them, and matrix() does",
        )


def _scores(model: LinearModel, x: Array, classes: int) -> Array:
    """(n, classes) decision values; minus infinity for classes without training rows."""
    scores = np.full((len(x), classes), -np.inf)
    scores[:, model.labels] = model.scores(x)
    return scores


def _summary(
    results: Sequence[SplitResult], classes: Sequence[str], seconds: float
) -> dict[str, Any]:
    chosen = Counter(result.c for result in results)
    tried = sorted({c for result in results for c in result.grid})
    shares = np.stack([result.per_class for result in results])
    tested = np.isfinite(shares).sum(axis=0)
    means = np.where(tested > 0, np.nansum(shares, axis=0) / np.maximum(tested, 1), np.nan)
    return {
        "C": min(chosen, key=lambda c: (-chosen[c], c)),
        "splits": len(results),
        "n_train": round(float(np.mean([result.division.train.size for result in results]))),
        "n_test": round(float(np.mean([result.division.test.size for result in results]))),
        "accuracy": _spread([result.accuracy for result in results]),
        "mean_class_accuracy": _spread([result.mean_class_accuracy for result in results]),
        "top5": _spread([result.top5 for result in results]),
        "map": None,
        "per_class": {
            name: float(mean) if np.isfinite(mean) else None
            for name, mean in zip(classes, means, strict=True)
        },
        "cv": [
            {
                "C": c,
                "score": float(np.mean([r.grid[c] for r in results if c in r.grid])),
                "chosen": chosen[c],
            }
            for c in tried
        ],
        "objective_gap": max(result.model.gap or 0.0 for result in results),
        "seconds": seconds,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and sample standard deviation; 0 for a single value."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"mean": float(np.mean(values)), "std": std}
