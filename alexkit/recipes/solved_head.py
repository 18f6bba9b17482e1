"""A linear head found by convex optimisation: no epochs, no rate, C chosen inside the rows it
learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from alexkit.choices import FitHead
from alexkit.events import Chosen, Reporter, Warned
from alexkit.probes.estimator import LinearSVM
from alexkit.probes.rows import Array, coordinates, inner_products
from alexkit.probes.softmax import TOLERANCE as EXACT
from alexkit.probes.softmax import Rows, fit_softmax, temperature
from alexkit.probes.svm import LinearModel

FOLDS = 3
"""In which C is chosen, as in :mod:`alexkit.probes`."""
C = {
    FitHead.LOGISTIC: (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
    FitHead.SVM: (0.01, 0.1, 1.0, 10.0),
}
"""On rows whose mean square length is 1; wide enough for 2 classes of 3 photos and for 500."""
SHARES = (1.0, 0.5, 0.0)
"""Of the length of a row of maps: what their means make up, see :class:`Form`."""
TOLD = {
    1.0: "one weight a map, the same at all its places",
    0.5: "weights of a map's places that agree",
    0.0: "a weight for each place of a map",
}
SVM_GAP = 1e-3
SEARCH = 1e-3
"""Tolerance of a logistic fit that only ranks the C."""
FEWER = 2
"""Numbers a row for each row from which on rows are turned into fewer coordinates."""
NEVER = -1e3
"""The logit of a class without a photo to learn from."""

Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """Rows in the form in which the length of the weights is what is kept small.

    Of maps, (C, H, W) in a row, a linear head has a weight for every place. A few hundred
    photos say little about places, and much about what is in a photo wherever it is. So the
    mean of each map stands beside the map, as in the levels of a spatial pyramid (Lazebnik et
    al. 2006); the longer the means, the more do the weights of a map's places agree. That is
    another penalty, not another head: a weight for a mean is one for all its places.

    Where numbers are many and rows few, rows are turned into coordinates, as many as rows, with
    the same inner products: the best weights are sums of rows, so that nothing is lost, and
    the search takes a tenth of the time.

    Attributes:
        rows: (m, w) float32.
        turned: (m, m) coordinates and (m, w') rows before; None where they are as they were.
        maps, places: C and H W; 1 map where there are none.
        lengths: root mean square length of the rows and of the means, over the shares' roots;
            infinite where the share is 0.
    """

    rows: Tensor
    turned: tuple[Array, npt.NDArray[np.float32]] | None
    maps: int
    places: int
    lengths: tuple[float, float]

    @classmethod
    def of(cls, x: Tensor, maps: int, share: float) -> Form:
        """(m, d) float32 rows, the means having ``share`` of the mean square length."""
        places = x.shape[1] // maps
        means = x.view(len(x), maps, places).mean(dim=2)
        parts, lengths = [], []
        for part, weight in ((x, 1 - share), (means, share)):
            square = float(part.square().sum(dim=1).mean()) or 1.0
            lengths.append(math.sqrt(square / weight) if weight else math.inf)
            if weight:
                parts.append(part / lengths[-1])
        rows, turned = torch.cat(parts, dim=1), None
        if FEWER * len(rows) <= rows.shape[1]:
            flat = rows.numpy()
            short = coordinates(inner_products(flat))
            turned = short + np.diag(np.diagonal(short) == 0), flat  # rows of zeros have none
            rows = torch.from_numpy(short).float()
        return cls(rows, turned, maps, places, (lengths[0], lengths[1]))

    def weights(self, found: Array) -> Array:
        """(K, w) weights for these rows as (K, d) for the rows that they were made of."""
        if self.turned is not None:
            short, flat = self.turned
            found = solve_triangular(short, found.T, trans="T", lower=True).T @ flat
        of_rows, of_means = self.lengths
        d = self.maps * self.places if of_rows < math.inf else 0
        weights = np.zeros((len(found), self.maps * self.places))
        if d:
            weights += found[:, :d] / of_rows
        if found.shape[1] > d:
            weights += np.repeat(found[:, d:] / (self.places * of_means), self.places, axis=1)
        return weights


@dataclass(frozen=True)
class Solved:
    """A head and how it was found.

    Attributes:
        weight: (K, d) float32, zeros for a class that no row has.
        bias: (K) float32.
        c: of the grid.
        share: of :data:`SHARES`.
        inside: (share, C) -> accuracy on the folds of the training rows; empty where a class
            has one row, and both are the middle of what there is.
    """

    weight: Tensor
    bias: Tensor
    c: float
    share: float
    inside: dict[tuple[float, float], float]

    @property
    def score(self) -> float | None:
        """Accuracy on the folds at what was chosen."""
        return self.inside.get((self.share, self.c))


def solve(
    kind: FitHead,
    rows: Tensor,
    labels: Labels,
    fold: Labels,
    *,
    classes: int,
    maps: int | None = None,
    importance: Weights | None,
    report: Reporter,
) -> Solved:
    """Fits the head to (n, V, d) float32 rows of V views each.

    C, and of maps what their means weigh, are chosen on the first view of the folds, and the
    head is fitted to all views, each weighing 1/V. What is chosen makes the classes of the
    photos left out most likely; the share that is right would choose among a few hundred
    photos by one or two of them. The weights are multiplied by the one factor that makes their
    softmax most likely on the folds, so that an SVM's values become probabilities and a
    logistic head's honest ones: the class that is named stays the same.

    Args:
        fold: (n) from 0; which rows are left out together.
        maps: how many maps the d numbers are, one after the other; None is no maps.
        importance: (K) what the loss of each class is multiplied by; None is 1.
    """
    known = np.unique(labels)
    weight = np.ones(len(labels)) if importance is None else importance[labels]
    shares = (0.0,) if maps in (None, rows.shape[2]) else SHARES
    parts = [k for k in np.unique(fold) if _all_learnt(labels, fold != k)]
    judged = np.isin(fold, parts)
    inside: dict[tuple[float, float], float] = {}
    losses: dict[tuple[float, float], float] = {}
    factors: dict[tuple[float, float], float] = {}
    for share in shares if len(parts) > 1 else ():
        form = Form.of(rows[:, 0], maps or 1, share)
        for c, scores in _on_folds(kind, form.rows, labels, weight, fold, parts, classes):
            one, seen, of = (share, c), scores[judged], labels[judged]
            factors[one] = temperature(seen, of)
            losses[one] = _loss(factors[one] * seen, of, weight[judged])
            right = seen.argmax(axis=1) == of
            inside[one] = float(np.average(right, weights=weight[judged]))
    share, c = shares[len(shares) // 2], C[kind][len(C[kind]) // 2]
    if inside:
        share, c = min(losses, key=lambda one: losses[one])
    else:
        report(Warned(f"a class has one photo to learn from: C is {c:g}, not chosen"))
    views = rows.shape[1]
    form = Form.of(rows.flatten(0, 1), maps or 1, share)
    fit = _fitter(kind, form.rows, np.repeat(labels, views), np.repeat(weight, views), views)
    model, factor = fit(c, None), factors.get((share, c), 1.0)
    full, bias = torch.zeros(classes, rows.shape[2]), torch.full((classes,), NEVER)
    full[known] = torch.from_numpy(factor * form.weights(model.weights)).float()
    bias[known] = torch.from_numpy(factor * model.bias).float()
    told = "the middle of the grid"
    if inside:
        told = f"{inside[share, c]:.1%} on {len(parts)} parts of the training photos"
    if len(shares) > 1:
        report(Chosen("new layer", TOLD[share], told))
    report(Chosen("C", f"{c:g}", told))
    return Solved(full, bias, c, share, inside)


def _on_folds(
    kind: FitHead,
    x: Tensor,
    labels: Labels,
    weight: Weights,
    fold: Labels,
    parts: list[int],
    classes: int,
) -> Iterator[tuple[float, Array]]:
    """Each C and (n, K) scores, of each row by what was learnt without its part."""
    values = {c: np.zeros((len(labels), classes)) for c in C[kind]}
    for k in parts:
        model, some = None, fold != k
        fit = _fitter(kind, x[some], labels[some], weight[some], 1, tolerance=SEARCH)
        for c in C[kind]:
            model = fit(c, model)
            values[c][~some] = _scores(model, x[~some], classes)
    yield from values.items()


def _fitter(
    kind: FitHead, x: Tensor, y: Labels, weight: Weights, views: int, tolerance: float = EXACT
) -> Callable[[float, LinearModel | None], LinearModel]:
    """What fits rows at a C, from a solution at a smaller one."""
    scaled = Rows.of(x)
    weight = weight / views
    if kind is FitHead.LOGISTIC:
        return lambda c, start: fit_softmax(
            scaled, y, c, importance=weight, start=start, tolerance=tolerance
        )
    plain = (scaled.centred + scaled.mean / scaled.length).numpy()

    def svm(c: float, start: LinearModel | None) -> LinearModel:
        found = LinearSVM(c, tol=SVM_GAP).fit(plain, y, sample_weight=weight)
        coef = np.asarray(found.coef_) / scaled.length
        return LinearModel.of(np.unique(y), coef, np.asarray(found.intercept_), c, None)

    return svm


def _loss(scores: Array, labels: Labels, weight: Weights) -> float:
    """Cross-entropy in nats, the weighted mean."""
    logits, told = torch.from_numpy(scores), torch.from_numpy(labels)
    each = torch.nn.functional.cross_entropy(logits, told, reduction="none")
    return float(np.average(each.numpy(), weights=weight))


def _scores(model: LinearModel, x: Tensor, classes: int) -> npt.NDArray[np.float64]:
    scores = np.full((len(x), classes), -1e9)
    scores[:, model.labels] = model.scores(x.numpy())
    return scores


def _all_learnt(labels: Labels, some: npt.NDArray[np.bool_]) -> bool:
    """Whether the rows left have every class, and two at least."""
    left = np.unique(labels[some])
    return left.size == np.unique(labels).size and left.size > 1
