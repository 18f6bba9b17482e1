"""A linear SVM on our own solver, with its optimality certified.

One class against the rest, squared hinge, L2 penalty on weights and intercept: the objective
of :mod:`alexkit.probes.objective`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alexkit.events import Reporter, silent
from alexkit.probes.objective import Array, Problems, RowBlocks, one_vs_rest
from alexkit.probes.solver import Solver

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LinearModel:
    """K linear functions, one for each class that was in the training rows.

    Attributes:
        labels: (K) int64, ascending.
        weights: (K, d) float64.
        bias: (K,) float64.
        c: the C it was fitted with.
        gap: certified relative duality gap, see
            :attr:`alexkit.probes.objective.Certificate.gap`; None where none is known.
    """

    labels: Labels
    weights: Array
    bias: Array
    c: float
    gap: float | None

    def scores(self, x: npt.NDArray[np.floating]) -> Array:
        """(n, K) decision values of (n, d) rows; the largest names the class."""
        return np.asarray(x @ self.weights.T + self.bias)

    @classmethod
    def of(
        cls, labels: Labels, weights: Array, bias: Array, c: float, gap: float | None
    ) -> LinearModel:
        """Two classes are one problem, seen from both sides."""
        if labels.size == 2 and len(weights) == 1:
            weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
        return cls(labels, weights, bias, c, gap)


def class_signs(y: Labels) -> tuple[Labels, npt.NDArray[np.int8]]:
    """The K labels in (n) ``y`` and (n, K) signs; (n, 1), of the second, where K is 2."""
    labels = np.unique(y)
    assert labels.size > 1
    return labels, one_vs_rest(y, labels if labels.size > 2 else labels[1:])


def fit_linear_svm(
    x: RowBlocks,
    y: Labels,
    c: float,
    *,
    gap: float,
    dtype: torch.dtype = torch.float32,
    report: Reporter = silent,
) -> LinearModel:
    """Fits one class against the rest, for each of the K ≥ 2 labels in ``y``.

    Args:
        x: (n, d), finite.
        y: (n) labels.
        c: C, the price of a unit of squared hinge; > 0.
        gap: the relative duality gap to reach. Where rounding does not allow it (a very large
            C), the best there is comes back with its true gap.
        dtype: of the products that search for the optimum; float64 goes on where float32 does
            not reach the gap.
        report: see :class:`alexkit.probes.solver.Solver`.

    Raises:
        DataError: a number is not finite.
    """
    labels, signs = class_signs(y)
    solver = Solver(x, problems=signs.shape[1], dtype=dtype, report=report)
    found = solver.solve(Problems.of(signs, c), gap=gap)
    return LinearModel.of(labels, *solver.weights(found.terms), c, found.certificate.gap)
