"""The linear SVM's objective, and a certificate of how near to its minimum a solution is.

For labels s_i = ±1 and rows x_i, each class's problem is liblinear's L2-regularised
squared hinge with the intercept inside the penalty (liblinear's ``-s 1``/``-s 2`` with
``-B 1``; Fan et al., LIBLINEAR, JMLR 9, 2008):

    P(w, b) = ½ (‖w‖² + b²) + C Σ_i max(0, 1 - s_i (w·x_i + b))²
    D(a)    = Σ_i a_i - ½ ‖Σ_i a_i s_i (x_i, 1)‖² - Σ_i a_i² / (4 C),    a ≥ 0

D(a) ≤ min P ≤ P(w, b) for every a ≥ 0 and every (w, b). At the minimum
a_i = 2 C max(0, 1 - s_i (w·x_i + b)); near it that choice, times the best factor, gives a
D just below P, and P - D bounds what any solver could still gain.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """What is known of K solutions: ``dual ≤ the minimum ≤ primal``, each (K,) float64."""

    primal: Array
    dual: Array

    @property
    def gap(self) -> float:
        """The largest (primal - dual) / primal of the K problems; 0 is the exact optimum.

        No class's objective is further above its minimum than this fraction of itself.
        """
        return float(np.max((self.primal - self.dual) / self.primal))


def certify(x: Array, signs: Array, weights: Array, bias: Array, c: float) -> Certificate:
    """Bounds the minimum of K problems on the same rows from K proposed solutions.

    Args:
        x: (n, d) rows.
        signs: (n, K), +1 where the row is of the class and -1 where it is not.
        weights: (K, d), any.
        bias: (K,), any.
        c: C, the price of a unit of squared hinge; > 0.
    """
    slack = np.maximum(0.0, 1.0 - signs * (x @ weights.T + bias))
    size = (weights**2).sum(axis=1) + bias**2
    primal = 0.5 * size + c * (slack**2).sum(axis=0)

    alpha = 2.0 * c * slack
    pull = alpha * signs
    lifted = ((x.T @ pull) ** 2).sum(axis=0) + pull.sum(axis=0) ** 2
    curvature = lifted + (alpha**2).sum(axis=0) / (2.0 * c)
    total = alpha.sum(axis=0)
    # D(t a) = t·total - ½ t²·curvature is largest at t = total / curvature. No slack at all
    # makes both 0: then a = 0, and D = 0 is all that this choice can certify.
    dual = 0.5 * total**2 / np.where(curvature > 0.0, curvature, 1.0)
    return Certificate(primal, dual)


def one_vs_rest(y: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> Array:
    """(n, K) signs: +1 where row i has the k-th of ``labels`` and -1 elsewhere."""
    return np.where(y[:, None] == labels[None, :], 1.0, -1.0)
