"""The linear SVM's objective, many problems on the same rows, and how near to the optimum.

For signs s_i = ±1, rows x_i and costs c_i > 0, each problem is liblinear's L2-regularised
squared hinge with the intercept inside the penalty (liblinear's ``-s 1``/``-s 2`` with
``-B``; Fan et al., LIBLINEAR, JMLR 9, 2008). With x̃_i = (x_i, B), or x_i alone where no
intercept is fitted, and u = (w, b / B):

    P(u) = ½ ‖u‖² + Σ_i c_i max(0, 1 - s_i u·x̃_i)²
    D(a) = Σ_i a_i - ½ ‖Σ_i a_i s_i x̃_i‖² - Σ_i a_i² / (4 c_i),    a ≥ 0

D(a) ≤ min P ≤ P(u) for every a ≥ 0 and every u. At the minimum
a_i = 2 c_i max(0, 1 - s_i u·x̃_i) and u = Σ_i a_i s_i x̃_i.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from alexkit.probes.cores import blocks_of, lanes

Array = npt.NDArray[np.float64]
Signs = npt.NDArray[np.int8]

NO_FOLD = -1


class RowBlocks(Protocol):
    """Rows of numbers, all at once or read in blocks: a numpy array, an h5py dataset."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> Any: ...


@dataclass(frozen=True)
class Problems:
    """m problems on the same n rows.

    Attributes:
        signs: (n, K) int8: +1 in the class, -1 not, 0 left out of that class's problems.
        target: (m) int64, the column of ``signs``.
        c: (m) float64, C of each problem; > 0.
        factors: (m, 2) float64, what C is multiplied by for rows of sign -1 and +1.
        weights: (n) float64, what C is multiplied by for each row; ≥ 0.
        folds: (n) int64, the fold of each row.
        held_out: (m) int64, the fold that a problem leaves out, or :data:`NO_FOLD`.
    """

    signs: Signs
    target: npt.NDArray[np.int64]
    c: Array
    factors: Array
    weights: Array
    folds: npt.NDArray[np.int64]
    held_out: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        signs: Signs,
        c: float,
        *,
        factors: Array | None = None,
        weights: Array | None = None,
        folds: npt.NDArray[np.int64] | None = None,
    ) -> Problems:
        """Every class of (n, K) signs at one C; with (n) folds, each class without each."""
        n, k = signs.shape
        held = np.array([NO_FOLD]) if folds is None else np.unique(folds)
        m = k * held.size
        return cls(
            signs=signs,
            target=np.tile(np.arange(k), held.size),
            c=np.full(m, float(c)),
            factors=np.ones((m, 2)) if factors is None else np.tile(factors, (held.size, 1)),
            weights=np.ones(n) if weights is None else weights,
            folds=np.zeros(n, np.int64) if folds is None else folds,
            held_out=np.repeat(held, k),
        )

    def __len__(self) -> int:
        return self.target.size

    def at(self, c: float) -> Problems:
        """The same problems at another C."""
        return replace(self, c=np.full(len(self), float(c)))

    def some(self, which: npt.NDArray[Any]) -> Problems:
        """Those of the problems."""
        return replace(
            self,
            target=self.target[which],
            c=self.c[which],
            factors=self.factors[which],
            held_out=self.held_out[which],
        )

    def block(self, rows: slice = slice(None)) -> tuple[Array, Array]:
        """Signs and costs of a block of rows, each (m, rows) float64; cost 0 is left out."""
        coded = self.signs[rows].T[self.target]
        price = self.c[:, None] * self.factors
        costs = np.where(coded > 0, price[:, 1:], price[:, :1])
        weights = self.weights[rows]
        if (weights != 1).any():
            costs *= weights
        if not coded.all():
            costs[coded == 0] = 0
        for fold in np.unique(self.held_out):
            of_fold, outside = self.held_out == fold, self.folds[rows] == fold
            if outside.any():
                costs[np.ix_(of_fold, outside)] = 0
        return coded.astype(np.float64), costs


@dataclass(frozen=True)
class Certificate:
    """What is known of m solutions: ``dual ≤ the minimum ≤ primal``, each (m) float64."""

    primal: Array
    dual: Array
    gaps: Array = field(init=False)
    """(m) (primal - dual) / primal: no objective is further above its minimum than this
    fraction of itself; 0 is the exact optimum."""

    def __post_init__(self) -> None:
        # A problem without rows has the minimum 0, where both bounds meet.
        size = np.where(self.primal > 0, self.primal, 1.0)
        object.__setattr__(self, "gaps", np.maximum(self.primal - self.dual, 0.0) / size)

    @property
    def gap(self) -> float:
        """The largest of ``gaps``."""
        return float(self.gaps.max())


@dataclass(frozen=True)
class Solution:
    """m solutions.

    Attributes:
        terms: float64, (m, n) coefficients of the rows or (m, d + 1) weights and, last, the
            intercept divided by the constant beside every row, (m, d) without an intercept;
            as the solver says.
        certificate: of these very terms.
        steps: (m) int64.
        wide: (m) bool, whether float32 did not reach the gap and float64 was used.
    """

    terms: Array
    certificate: Certificate
    steps: npt.NDArray[np.int64]
    wide: npt.NDArray[np.bool_]


def lifted(x: npt.NDArray[Any], bias: float) -> Array:
    """(n, d + 1) float64 rows with ``bias`` as their last column; (n, d) where it is 0."""
    if bias == 0.0:
        return np.asarray(x, np.float64)
    rows = np.empty((len(x), x.shape[1] + 1))
    rows[:, :-1] = x
    rows[:, -1] = bias
    return rows


def certify(
    x: RowBlocks, problems: Problems, u: Array, *, bias: float, block: int = 4096
) -> Certificate:
    """Bounds the minimum of m problems from any proposed solutions; two products in float64.

    Args:
        x: (n, d) rows, read once, in order.
        u: (m, d + 1) weights and, last, the intercept divided by ``bias``; (m, d) where
            ``bias`` is 0.
        bias: B, the constant put beside every row.
        block: rows read at a time.
    """

    def look(blocks: list[slice]) -> tuple[Array, Array, Array]:
        loss, total, pull = np.zeros(len(u)), np.zeros(len(u)), np.zeros_like(u)
        for rows in blocks:
            part = lifted(x[rows], bias)
            signs, costs = problems.block(rows)
            slack = u @ part.T
            slack *= signs
            np.subtract(1.0, slack, out=slack)
            np.maximum(slack, 0.0, out=slack)
            alpha = costs * slack
            loss += np.einsum("mn,mn->m", alpha, slack)
            alpha *= 2.0
            total += alpha.sum(axis=1)
            alpha *= signs
            pull += alpha @ part
        return loss, total, pull

    found = zip(*lanes(look, blocks_of(x.shape[0], block)), strict=True)
    loss, total, pull = (sum(part) for part in found)
    curvature = (pull**2).sum(axis=1) + 2.0 * loss  # Σ a² / 2c is Σ 2c ξ²
    return Certificate(0.5 * (u**2).sum(axis=1) + loss, best_dual(total, curvature))


def best_dual(total: Array, curvature: Array) -> Array:
    """The largest D(t a) over t ≥ 0.

    D(t a) = t·total - ½ t²·curvature is largest at t = total / curvature. No slack at all
    makes both 0: then D = 0 is all that a = 0 can certify.
    """
    return 0.5 * total**2 / np.where(curvature > 0.0, curvature, 1.0)


def one_vs_rest(y: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Signs:
    """(n, K) signs: +1 where row i has the k-th of ``labels`` and -1 elsewhere."""
    return np.where(y[:, None] == labels[None, :], np.int8(1), np.int8(-1))
