"""A head found by convex optimisation: no epochs, no rate, C chosen inside the rows it learns
from. It is linear, or a linear layer on the units of an RBF network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import solve_triangular
from torch import Tensor

from alexkit.choices import FitHead
from alexkit.events import Chosen, Reporter, Warned
from alexkit.models.rbf_head import LEVEL, described
from alexkit.probes.estimator import LinearSVM
from alexkit.probes.rows import Array, coordinates, inner_products
from alexkit.probes.softmax import TOLERANCE as EXACT
from alexkit.probes.softmax import Rows, fit_softmax, temperature
from alexkit.probes.svm import LinearModel

FOLDS = 5
"""In which C is chosen."""
FOLDS_OF_MANY, MANY = 3, 700
"""The same from so many rows on, where each fit takes long and the choice is easier."""
MUCH = 500_000
"""Rows times classes above which a mean is of SVMs alone: a softmax would take hours."""
Grid = Mapping[FitHead, tuple[float, ...]]
C: Grid = {
    FitHead.LOGISTIC: (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0),
    FitHead.SVM: (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
}
"""On rows whose mean square length is 1; wide enough for 2 classes of 3 images and for 500."""
C_OF_UNITS: Grid = {FitHead.LOGISTIC: (0.3, 3.0, 30.0), FitHead.SVM: (0.1, 1.0, 10.0)}
"""The same of an RBF head, which hardly asks for C: it is the largest unless labels are wrong.
Between more values chance would choose (the manual has the figures)."""
SHARE = 0.5
"""Of the length of a row of maps: what their means make up, see :class:`Form`."""
UNITS = 4096
"""The most centres of an RBF head: as many as fc6 has units."""
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
    al. 2006), and the weights of a map's places agree the more. That is another penalty, not
    another head: a weight for a mean is one for all its places.

    Where numbers are many and rows few, rows are turned into coordinates, as many as rows, with
    the same inner products: the best weights are sums of rows, so that nothing is lost, and
    the search takes a tenth of the time.

    Attributes:
        rows: (m, w) float32.
        turned: (m, m) coordinates and (m, w') rows before; None where they are as they were.
        maps, places: C and H W; 1 map where there are none.
        lengths: root mean square length of the rows and of the means, over the roots of the
            shares that they have; infinite where that is 0.
    """

    rows: Tensor
    turned: tuple[Array, npt.NDArray[np.float32]] | None
    maps: int
    places: int
    lengths: tuple[float, float]

    @classmethod
    def of(cls, x: Tensor, maps: int) -> Form:
        """(m, d) float32 rows of ``maps`` maps; 1 where they are none."""
        places = x.shape[1] // maps
        means = x.view(len(x), maps, places).mean(dim=2)
        share = SHARE if maps > 1 and places > 1 else 0.0
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

    def layer(self, found: Array, bias: Array) -> tuple[Array, Array]:
        """(K, w) weights and (K) biases for these rows as (K, d) and (K) for the rows that
        they were made of."""
        if self.turned is not None:
            short, flat = self.turned
            found = solve_triangular(short, found.T, trans="T", lower=True).T @ flat
        of_rows, of_means = self.lengths
        d = self.maps * self.places
        weights = found[:, :d] / of_rows
        if found.shape[1] > d:
            weights += np.repeat(found[:, d:] / (self.places * of_means), self.places, axis=1)
        return weights, bias


@dataclass(frozen=True)
class Kernel:
    """Rows whose inner products are a kernel of the images': a linear layer on them is an
    :class:`alexkit.models.rbf_head.RBFHead` with a centre at each of the images.

    Attributes:
        rows: (m, m) float32 coordinates.
        turned: the same in float64.
        centres: (m, w) float32.
        gamma: 1 over the median of ‖u - u'‖² over the rows, which needs no search: from 0.7 to
            2 times as much it makes no difference (the manual has the figures).
    """

    rows: Tensor
    turned: Array
    centres: Tensor
    gamma: float

    @classmethod
    def of(cls, x: Tensor, maps: int) -> Kernel:
        """(m, d) float32 rows of ``maps`` maps, two rows at least."""
        centres = described(x, maps)
        products = inner_products(centres.numpy())
        squares = np.diagonal(products)
        apart = np.maximum(squares[:, None] + squares - 2 * products, 0.0)
        gamma = 1.0 / (float(np.median(apart[~np.eye(len(x), dtype=bool)])) or 1.0)
        turned = coordinates(np.exp(-gamma * apart))
        return cls(torch.from_numpy(turned).float(), turned, centres, gamma)

    def layer(self, found: Array, bias: Array) -> tuple[Array, Array]:
        """(K, m) weights and (K) biases for these rows as those for the units."""
        weights = np.asarray(solve_triangular(self.turned, found.T, trans="T", lower=True).T)
        return weights, bias + LEVEL * weights.sum(axis=1)


@dataclass(frozen=True)
class Member:
    """One of the heads whose mean is the head.

    Attributes:
        kind: logistic or SVM.
        c: of the grid.
        factor: what its values are multiplied by to be honest logits.
        scores: (n, K) such logits of rows of the folds, each by what was learnt without its
            fold; None where nothing was chosen.
    """

    kind: FitHead
    c: float
    factor: float = 1.0
    scores: Array | None = None


@dataclass(frozen=True)
class Solved:
    """A head and how it was found.

    Attributes:
        weight: (K, d) float32, zeros for a class that no row has; (K, M) of units.
        bias: (K) float32.
        kernel: what the M units of an RBF head are; None where the head is linear.
        members: what it is the mean of.
        score: its accuracy on the folds of the training rows; None where a class has one row,
            and every C is the middle of the grid.
    """

    weight: Tensor
    bias: Tensor
    kernel: Kernel | None
    members: tuple[Member, ...]
    score: float | None

    @property
    def units(self) -> int | None:
        """Of an RBF head."""
        return None if self.kernel is None else len(self.kernel.centres)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The state dict of the layer."""
        tensors = {"weight": self.weight, "bias": self.bias}
        if self.kernel is not None:
            gamma = torch.tensor([self.kernel.gamma])
            tensors |= {"centres": self.kernel.centres, "gamma": gamma}
        return tensors


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

    It is logistic regression, SVM, or the mean of both, which is one head: on images that
    chose nothing the mean was right more often than either, and its probabilities were better
    (the manual has the figures), as their errors differ. ``rbf`` is the mean of both upon the
    units of an RBF head, see :class:`Kernel`; the others are linear, see :class:`Form`.

    The C of each is chosen on the first view of the folds: the one that makes the classes of
    the images left out most likely; the share that is right would choose among a few hundred
    images by one or two of them. Each is then fitted to all views, each weighing 1/V. Values
    are multiplied by the factor that makes their softmax most likely on the folds, those of
    each head and once more their mean's, so that probabilities are honest; the class that is
    named stays the same.

    Args:
        kind: ``rbf`` takes at most :data:`UNITS` rows, and of their views the first that are
            no more.
        fold: (n) from 0; which rows are left out together.
        maps: how many maps the d numbers are, one after the other; None is no maps.
        importance: (K) what the loss of each class is multiplied by; None is 1.
    """
    make: Callable[[Tensor], Form | Kernel] = partial(Form.of, maps=maps or 1)
    grid = C
    if kind is FitHead.RBF:
        make, grid = partial(Kernel.of, maps=maps or 1), C_OF_UNITS
        assert len(rows) <= UNITS, len(rows)
        rows = rows[:, : UNITS // len(rows)]
    weight = np.ones(len(labels)) if importance is None else importance[labels]
    kinds = _asked(kind, len(labels) * classes)
    parts = [k for k in np.unique(fold) if _all_learnt(labels, fold != k)]
    factor, score = 1.0, None
    if len(parts) < 2:
        members = [Member(one, grid[one][len(grid[one]) // 2]) for one in kinds]
        report(Warned("a class has one training image: C is not chosen"))
    else:
        members = []
        judged = np.isin(fold, parts)
        x = make(rows[:, 0]).rows
        for one in kinds:
            tried = _on_folds(one, grid[one], x, labels, weight, fold, parts, classes)
            members.append(_likeliest(one, tried, labels, weight, judged))
        together = _mean([one.scores for one in members if one.scores is not None])[judged]
        factor = temperature(together, labels[judged])
        right = together.argmax(axis=1) == labels[judged]
        score = float(np.average(right, weights=weight[judged]))
    views = rows.shape[1]
    form = make(rows.flatten(0, 1))
    each, weighing = np.repeat(labels, views), np.repeat(weight, views)
    found = []
    for member in members:
        model = _fitter(member.kind, form.rows, each, weighing, views)(member.c, None)
        found.append([member.factor * part for part in form.layer(model.weights, model.bias)])
    weights, its_bias = (factor * _mean(part) for part in zip(*found, strict=True))
    known = np.unique(labels)
    full, bias = torch.zeros(classes, weights.shape[1]), torch.full((classes,), NEVER)
    full[known] = torch.from_numpy(weights).float()
    bias[known] = torch.from_numpy(its_bias).float()
    kernel = form if isinstance(form, Kernel) else None
    _tell(members, score, len(parts), kernel, report)
    return Solved(full, bias, kernel, tuple(members), score)


def _asked(kind: FitHead, size: int) -> tuple[FitHead, ...]:
    """The heads whose mean is to be made, of so many rows times classes."""
    if kind in C:
        return (kind,)
    return (FitHead.SVM,) if size > MUCH else tuple(C)


def _likeliest(
    kind: FitHead,
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
            best, least = Member(kind, c, factor, factor * scores), loss
    assert best is not None
    return best


def _mean(arrays: Sequence[Array]) -> Array:
    return np.asarray(sum(arrays) / len(arrays), np.float64)


def _tell(
    members: Sequence[Member],
    score: float | None,
    parts: int,
    kernel: Kernel | None,
    report: Reporter,
) -> None:
    """What the head is, and how good where that is known."""
    what = "linear"
    if kernel is not None:
        what = f"RBF network, {len(kernel.centres)} units"
    names = " and ".join(one.kind.value for one in members)
    if len(members) > 1:
        names = f"the mean of {names}"
    told, rule = "", "the middle of the grid"
    if score is not None:
        told = f"; {score:.1%} on {parts} parts of the training images"
        rule = "chosen on those parts"
    report(Chosen("new layer", what, names + told))
    for one in members:
        report(Chosen(f"C, {one.kind.value}", f"{one.c:g}", rule))


def _on_folds(
    kind: FitHead,
    grid: Sequence[float],
    x: Tensor,
    labels: Labels,
    weight: Weights,
    fold: Labels,
    parts: list[int],
    classes: int,
) -> Iterator[tuple[float, Array]]:
    """Each C and (n, K) scores, of each row by what was learnt without its part."""
    values = {c: np.zeros((len(labels), classes)) for c in grid}
    for k in parts:
        model, some = None, fold != k
        fit = _fitter(kind, x[some], labels[some], weight[some], 1, tolerance=SEARCH)
        for c in grid:
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
