"""A linear SVM on scikit-learn's LinearSVC, with its optimality certified.

One class against the rest, squared hinge, L2 penalty on weights and intercept: the
objective of :mod:`alexkit.probes.objective`, solved by liblinear.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg.lapack import dpstrf
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from alexkit.probes.objective import Array, certify, one_vs_rest

Labels = npt.NDArray[np.int64]

TOLERANCES = (1e-4, 1e-6, 1e-8, 1e-10)
"""liblinear's stopping rule, tightened until the certified gap is small enough; the first is
LinearSVC's own."""
MAX_ITER = 10_000
"""Sweeps over the rows (dual) or Newton steps (primal)."""
DUAL_BELOW = 4
"""liblinear's dual coordinate descent up to n = 4 d, its primal Newton method from there.
Measured from C = 0.01 to 100 in units of 1 / mean ‖x‖²: at n ≤ d the primal takes up to nine
times as long and stays further from the optimum; at n = 100 d the dual does not converge."""


@dataclass(frozen=True)
class LinearModel:
    """K linear functions, one for each class that was in the training rows.

    Attributes:
        labels: (K) int64, ascending.
        weights: (K, d) float64.
        bias: (K,) float64.
        c: the C it was fitted with.
        gap: certified relative duality gap, see
            :attr:`alexkit.probes.objective.Certificate.gap`.
    """

    labels: Labels
    weights: Array
    bias: Array
    c: float
    gap: float

    def scores(self, x: Array) -> Array:
        """(n, K) decision values of (n, d) rows; the largest names the class."""
        return x @ self.weights.T + self.bias


def fit_linear_svm(x: Array, y: Labels, c: float, *, gap: float, seed: int = 0) -> LinearModel:
    """Fits one class against the rest, for each of the K ≥ 2 labels in ``y``.

    Args:
        x: (n, d) float64, finite.
        y: (n) labels.
        c: C, the price of a unit of squared hinge; > 0.
        gap: the relative duality gap to reach. Where even the tightest tolerance does not
            reach it (a very large C), the best there is comes back with its true gap.
        seed: liblinear visits the rows in random order.
    """
    labels = np.unique(y)
    assert labels.size > 1
    signs = one_vs_rest(y, labels)
    best: LinearModel | None = None
    for tolerance in TOLERANCES:
        weights, bias, spent = _liblinear(x, y, c, tolerance, seed)
        found = certify(x, signs, weights, bias, c).gap
        if best is None or found < best.gap:
            best = LinearModel(labels, weights, bias, c, found)
        if found <= gap or spent:
            break
    assert best is not None
    return best


def _liblinear(
    x: Array, y: Labels, c: float, tol: float, seed: int
) -> tuple[Array, Array, bool]:
    """Weights (K, d), intercepts (K,), and whether it gave up at :data:`MAX_ITER`."""
    n, d = x.shape
    solver = LinearSVC(
        C=c,
        loss="squared_hinge",
        dual=n < DUAL_BELOW * d,
        tol=tol,
        max_iter=MAX_ITER,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # The gap says how far it got, which this warning does not.
        warnings.simplefilter("ignore", ConvergenceWarning)
        solver.fit(x, y)
    weights, bias, spent = solver.coef_, solver.intercept_, bool(solver.n_iter_ >= MAX_ITER)
    if len(weights) == 1:  # two classes are one problem, seen from both sides
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    return weights, bias, spent


def row_space(x: Array) -> Array:
    """Coordinates of (n, d) rows in the space they span: (n, r), r ≤ min(n, d), lengths and
    angles unchanged.

    A linear classifier with an L2 penalty depends on its rows only through their inner
    products, so it has the same optimum and the same predictions in these coordinates. They
    are the pivoted Cholesky factor of X Xᵀ: lower triangular up to the order of rows, which
    halves the work of a solver that skips zeros. Returned unchanged where n ≥ d: there is
    nothing to gain.
    """
    n, d = x.shape
    if n >= d:
        return x
    factor, pivots, rank, info = dpstrf(x @ x.T, lower=True)
    assert info >= 0
    coordinates = np.empty((n, rank))
    coordinates[pivots - 1] = np.tril(factor)[:, :rank]
    return coordinates
