"""A linear head found by convex optimisation: no epochs, no rate, C chosen inside the rows it
learns from; the mean of several such heads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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

FOLDS = 5
"""In which C is chosen."""
FOLDS_OF_MANY, MANY = 3, 700
"""The same from so many rows on, where each fit takes long and the choice is easier; of the
shares only the middle one is fitted there."""
MUCH = 500_000
"""Rows times classes above which a mean is of SVMs alone: a softmax would take hours."""
C = {
    FitHead.LOGISTIC: (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
    FitHead.SVM: (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""On rows whose mean square length is 1; wide enough for 2 classes of 3 images and for 500."""
SHARES = (1.0, 0.5, 0.0)
"""Of the length of a row of maps: what their means make up, see :class:`Form`."""
TOLD = {
    1.0: "one weight a map",
    0.5: "weights of a map's places that agree",
    0.0: "a weight a place",
}
SVM_GAP = 1e-3
SEARCH = 1e-3
"""Tolerance of a logistic fit that only ranks the C."""
FEWER = 2
"""Numbers a row for each row from which on rows are turned into fewer coordinates."""
NEVER = -1e3
"""The logit of a class without a training image."""

Labels = npt.NDArray[np.int64]
Weights = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Form:
    """Rows in the form in which the length of the weights is what is kept small.

    Of maps, (C, H, W) in a row, a linear head has a weight for every place. A few hundred
    images say little about places, and much about what is in an image wherever it is. So the
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
class Member:
    """One of the heads whose mean is the head.

    Attributes:
        kind: logistic or SVM.
        share: of :data:`SHARES`.
        c: of the grid.
        factor: what its values are multiplied by to be honest logits.
        scores: (n, K) such logits of rows of the folds, each by what was learnt without its
            fold; None where nothing was chosen.
    """

    kind: FitHead
    share: float
    c: float
    factor: float = 1.0
    scores: Array | None = None


@dataclass(frozen=True)
class Solved:
    """A head and how it was found.

    Attributes:
        weight: (K, d) float32, zeros for a class that no row has.
        bias: (K) float32.
        members: what it is the mean of.
        score: its accuracy on the folds of the training rows; None where a class has one row,
            and every C is the middle of the grid.
    """

    weight: Tensor
    bias: Tensor
    members: tuple[Member, ...]
    score: float | None


def folds_for(rows: int) -> int:
    """In how many folds :func:`solve` is to be given so many rows."""
    return FOLDS if rows < MANY else FOLDS_OF_MANY


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

    It is the mean of several linear heads, which is one linear head: logistic regression and
    SVM, or one of them, each with three shares of the means of maps (see :class:`Form`). On
    images that chose nothing the mean was right more often than the head that does best on
    the folds, and its probabilities were better (the manual has the figures): a few hundred
    images do not tell which of the heads is the best, and their errors differ.

    The C of each is chosen on the first view of the folds: the one that makes the classes of
    the images left out most likely; the share that is right would choose among a few hundred
    images by one or two of them. Each is then fitted to all views, each weighing 1/V. Values
    are multiplied by the factor that makes their softmax most likely on the folds, those of
    each head and once more their mean's, so that probabilities are honest; the class that is
    named stays the same.

    Args:
        kind: ``mean`` is both kinds.
        fold: (n) from 0; which rows are left out together.
        maps: how many maps the d numbers are, one after the other; None is no maps.
        importance: (K) what the loss of each class is multiplied by; None is 1.
    """
    weight = np.ones(len(labels)) if importance is None else importance[labels]
    kinds, shares = _asked(kind, len(labels), classes, mapped=maps not in (None, rows.shape[2]))
    parts = [k for k in np.unique(fold) if _all_learnt(labels, fold != k)]
    factor, score = 1.0, None
    if len(parts) < 2:
        members = [
            Member(one, share, C[one][len(C[one]) // 2]) for share in shares for one in kinds
        ]
        report(Warned("a class has one training image: C is not chosen"))
    else:
        members = []
        judged = np.isin(fold, parts)
        for share in shares:
            x = Form.of(rows[:, 0], maps or 1, share).rows
            for one in kinds:
                tried = _on_folds(one, x, labels, weight, fold, parts, classes)
                members.append(_likeliest(one, share, tried, labels, weight, judged))
        together = _mean([one.scores for one in members if one.scores is not None])[judged]
        factor = temperature(together, labels[judged])
        right = together.argmax(axis=1) == labels[judged]
        score = float(np.average(right, weights=weight[judged]))
    known = np.unique(labels)
    found = _fitted(members, rows, labels, weight, maps or 1)
    full, bias = torch.zeros(classes, rows.shape[2]), torch.full((classes,), NEVER)
    full[known] = torch.from_numpy(factor * _mean([w for w, _ in found])).float()
    bias[known] = torch.from_numpy(factor * _mean([b for _, b in found])).float()
    _tell(members, score, len(parts), report)
    return Solved(full, bias, tuple(members), score)


def _asked(
    kind: FitHead, rows: int, classes: int, *, mapped: bool
) -> tuple[tuple[FitHead, ...], tuple[float, ...]]:
    """Kinds and shares of the heads whose mean is to be made."""
    shares = (0.0,) if not mapped else SHARES if rows < MANY else SHARES[1:2]
    if kind is not FitHead.MEAN:
        return (kind,), shares
    return (FitHead.SVM,) if rows * classes > MUCH else tuple(C), shares


def _fitted(
    members: Sequence[Member], rows: Tensor, labels: Labels, weight: Weights, maps: int
) -> list[tuple[Array, Array]]:
    """Weights and biases of each member, fitted to all views of all rows."""
    views, found = rows.shape[1], []
    labels, weight = np.repeat(labels, views), np.repeat(weight, views)
    for share in dict.fromkeys(one.share for one in members):
        form = Form.of(rows.flatten(0, 1), maps, share)
        for one in members:
            if one.share == share:
                model = _fitter(one.kind, form.rows, labels, weight, views)(one.c, None)
                found.append(
                    (one.factor * form.weights(model.weights), one.factor * model.bias)
                )
    return found


def _likeliest(
    kind: FitHead,
    share: float,
    tried: Iterable[tuple[float, Array]],
    labels: Labels,
    weight: Weights,
    judged: npt.NDArray[np.bool_],
) -> Member:
    """The C, of those tried, that makes the judged rows most likely."""
    best, least = None, math.inf
    for c, scores in tried:
        factor = temperature(scores[judged], labels[judged])
        loss = _loss(factor * scores[judged], labels[judged], weight[judged])
        if loss < least:
            best, least = Member(kind, share, c, factor, factor * scores), loss
    assert best is not None
    return best


def _mean(arrays: Sequence[Array]) -> Array:
    return np.asarray(sum(arrays) / len(arrays), np.float64)


def _tell(members: Sequence[Member], score: float | None, parts: int, report: Reporter) -> None:
    """What the head is, and how good where that is known."""
    told = "the middle of the grid"
    if score is not None:
        told = f"{score:.1%} on {parts} parts of the training images"
    kinds = list(dict.fromkeys(one.kind for one in members))
    several = f"the mean of {len(members)} linear layers" if len(members) > 1 else "linear"
    names = " and ".join(one.value for one in kinds)
    report(Chosen("new layer", several, f"{names}; {told}"))
    for kind in kinds:
        own = [one for one in members if one.kind is kind]
        said = ", ".join(TOLD[one.share] for one in own) if len(own) > 1 else told
        report(Chosen(f"C, {kind.value}", ", ".join(f"{one.c:g}" for one in own), said))


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
