"""A linear head found by convex optimisation: no epochs, no rate, C chosen inside the rows it
learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexkit.choices import FitHead
from alexkit.events import Chosen, Reporter, Warned
from alexkit.probes.estimator import LinearSVM
from alexkit.probes.softmax import Rows, fit_softmax, temperature
from alexkit.probes.svm import LinearModel

FOLDS = 3
"""In which C is chosen, as in :mod:`alexkit.probes`."""
C = {FitHead.LOGISTIC: (0.3, 3.0, 30.0, 300.0), FitHead.SVM: (0.01, 0.1, 1.0, 10.0)}
"""On rows whose mean square length is 1; wide enough for 2 classes of 3 photos and for 500."""
SVM_GAP = 1e-3
NEVER = -1e3
"""The logit of a class without a photo to learn from."""

Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Solved:
    """A head and how it was found.

    Attributes:
        weight: (K, d) float32, zeros for a class that no row has.
        bias: (K) float32.
        c: of the grid.
        inside: C -> accuracy on the folds of the training rows; empty where a class has one
            row, and C is the middle of the grid.
    """

    weight: Tensor
    bias: Tensor
    c: float
    inside: dict[float, float]

    @property
    def score(self) -> float | None:
        """Accuracy on the folds at the chosen C."""
        return self.inside.get(self.c)


def solve(
    kind: FitHead,
    rows: Tensor,
    labels: Labels,
    fold: Labels,
    *,
    classes: int,
    importance: Weights | None,
    report: Reporter,
) -> Solved:
    """Fits the head to (n, V, d) float32 rows of V views each.

    C is chosen on the first view of the folds, of equal ones the smallest, and the head is
    fitted to all views, each weighing 1/V. The weights are multiplied by the one factor that
    makes their softmax most likely on the folds, so that an SVM's values become probabilities
    and a logistic head's honest ones: the class that is named stays the same.

    Args:
        fold: (n) from 0; which rows are left out together.
        importance: (K) what the loss of each class is multiplied by; None is 1.
    """
    known = np.unique(labels)
    weight = np.ones(len(labels)) if importance is None else importance[labels]
    first = rows[:, 0]
    grid = C[kind]
    parts = [k for k in np.unique(fold) if _all_learnt(labels, fold != k)]
    inside: dict[float, float] = {}
    values: dict[float, npt.NDArray[np.float64]] = {}
    for k in parts if len(parts) > 1 else []:
        model, some = None, fold != k
        fit = _fitter(kind, first[some], labels[some], weight[some], 1)
        for c in grid:
            model = fit(c, model)
            scores = _scores(model, first[~some], classes)
            values.setdefault(c, np.zeros((len(labels), classes)))[~some] = scores
    judged = np.isin(fold, parts)
    for c, scores in values.items():
        right = scores[judged].argmax(axis=1) == labels[judged]
        inside[c] = float(np.average(right, weights=weight[judged]))
    c = max(inside, key=lambda one: (inside[one], -one)) if inside else grid[len(grid) // 2]
    if not inside:
        report(Warned(f"a class has one photo to learn from: C is {c:g}, not chosen"))
    views = rows.shape[1]
    flat = rows.reshape(len(rows) * views, -1)
    fit = _fitter(kind, flat, np.repeat(labels, views), np.repeat(weight, views), views)
    model = fit(c, None)
    factor = temperature(values[c][judged], labels[judged]) if inside else 1.0
    full, bias = torch.zeros(classes, flat.shape[1]), torch.full((classes,), NEVER)
    full[known] = torch.from_numpy(factor * model.weights).float()
    bias[known] = torch.from_numpy(factor * model.bias).float()
    told = f"{inside[c]:.1%} on {len(parts)} parts of the training photos" if inside else ""
    report(Chosen("C", f"{c:g}", told or "the middle of the grid"))
    return Solved(full, bias, c, inside)


def _fitter(
    kind: FitHead, x: Tensor, y: Labels, weight: Weights, views: int
) -> Callable[[float, LinearModel | None], LinearModel]:
    """What fits rows at a C, from a solution at a smaller one."""
    scaled = Rows.of(x)
    weight = weight / views
    if kind is FitHead.LOGISTIC:
        return lambda c, start: fit_softmax(scaled, y, c, importance=weight, start=start)
    plain = (scaled.centred + scaled.mean / scaled.length).numpy()

    def svm(c: float, start: LinearModel | None) -> LinearModel:
        found = LinearSVM(c, tol=SVM_GAP).fit(plain, y, sample_weight=weight)
        coef = np.asarray(found.coef_) / scaled.length
        return LinearModel.of(np.unique(y), coef, np.asarray(found.intercept_), c, None)

    return svm


def _scores(model: LinearModel, x: Tensor, classes: int) -> npt.NDArray[np.float64]:
    scores = np.full((len(x), classes), -1e9)
    scores[:, model.labels] = model.scores(x.numpy())
    return scores


def _all_learnt(labels: Labels, some: npt.NDArray[np.bool_]) -> bool:
    """Whether the rows left have every class, and two at least."""
    left = np.unique(labels[some])
    return left.size == np.unique(labels).size and left.size > 1
