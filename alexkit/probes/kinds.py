"""The probes by name: what can be fitted to rows and labels, and what each gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from alexkit.choices import ProbeKind
from alexkit.errors import UnknownName
from alexkit.probes.objective import Array
from alexkit.probes.softmax import Rows, fit_softmax
from alexkit.probes.svm import Labels, LinearModel, class_signs, fit_linear_svm

NEIGHBOURS = 20
"""k of k nearest neighbours; fewer where there are fewer rows. As in DINO's evaluation (Caron
et al., 2021), without its temperature."""
LOGISTIC_TOLERANCE = 1e-5
"""Of the largest entry of the mean loss's gradient."""
LOGISTIC_ITERATIONS = 1000
"""Enough for the tolerance wherever it was tried: handwritten digits, which are among the slow,
take 250 to 780 at C from 0.001 to 1."""


class Probe(Protocol):
    """A fitted probe."""

    @property
    def labels(self) -> Labels: ...

    def scores(self, x: npt.NDArray[np.floating]) -> Array:
        """(n, K) of (n, d) rows; the largest names the class."""
        ...


@dataclass(frozen=True)
class Neighbours:
    """k nearest neighbours by cosine: the share of each class among them.

    Attributes:
        labels: (K) int64, ascending.
        fitted: scikit-learn's classifier on rows of length 1.
    """

    labels: Labels
    fitted: KNeighborsClassifier

    def scores(self, x: npt.NDArray[np.floating]) -> Array:
        """(n, K) shares."""
        return np.asarray(self.fitted.predict_proba(x))


def fit_probe(
    kind: str, x: npt.NDArray[np.floating], y: Labels, c: float, *, gap: float
) -> Probe:
    """Fits (n, d) rows to (n) labels of K ≥ 2 classes.

    Args:
        kind: ``svm`` (squared hinge), ``hinge``, ``logistic`` (multinomial), ``ridge``
            (least squares on signs), ``knn``.
        c: the price of the loss against ½ ‖w‖²; ``knn`` has none and takes no notice.
        gap: the relative duality gap to reach, for ``svm``.

    Raises:
        UnknownName: there is no such kind.
    """
    if kind == "svm":
        return fit_linear_svm(x, y, c, gap=gap)
    if kind not in FITS:
        raise UnknownName("probe", kind, [known.value for known in ProbeKind])
    return FITS[kind](x, y, c)


def _hinge(x: npt.NDArray[np.floating], y: Labels, c: float) -> LinearModel:
    """liblinear's dual coordinate ascent on the plain hinge (``-s 3``)."""
    fitted = LinearSVC(C=c, loss="hinge", tol=1e-4, max_iter=10_000, random_state=0).fit(x, y)
    return LinearModel.of(np.unique(y), fitted.coef_, fitted.intercept_, c, None)


def _ridge(x: npt.NDArray[np.floating], y: Labels, c: float) -> LinearModel:
    """½ ‖w‖² + C Σ (s - w·x - b)², the intercept free."""
    labels, signs = class_signs(y)
    fitted = Ridge(alpha=1 / (2 * c)).fit(np.asarray(x, np.float64), signs.astype(np.float64))
    weights, bias = np.atleast_2d(fitted.coef_), np.atleast_1d(fitted.intercept_)
    return LinearModel.of(labels, weights, bias, c, None)


def _logistic(x: npt.NDArray[np.floating], y: Labels, c: float) -> LinearModel:
    """½ ‖W‖² + C Σ log loss of a softmax, intercepts free, by L-BFGS in float64.

    The weights are sums of rows: where there are fewer rows than columns the search is over
    coordinates in the space they span, which are as many as rows. Two classes are, as in
    scikit-learn, one function w with the penalty ½ ‖w‖², seen from both sides.
    """
    rows, turn = _spanned(np.asarray(x, np.float64))
    price = c / 2 if np.unique(y).size == 2 else c
    found = fit_softmax(
        Rows.unscaled(torch.from_numpy(rows)),
        y,
        price,
        tolerance=LOGISTIC_TOLERANCE,
        iterations=LOGISTIC_ITERATIONS,
    )
    return LinearModel.of(found.labels, found.weights @ turn, found.bias, c, None)


def _spanned(x: Array) -> tuple[Array, Array]:
    """Coordinates (n, r) of rows and orthonormal (r, d) axes, r = min(n, d)."""
    n, d = x.shape
    if n >= d:
        return x, np.eye(d)
    axes, upper = np.linalg.qr(x.T)
    return upper.T, axes.T


def _knn(x: npt.NDArray[np.floating], y: Labels, c: float) -> Neighbours:
    k = min(NEIGHBOURS, len(x))
    fitted = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(x, y)
    return Neighbours(np.unique(y), fitted)


FITS: dict[str, Callable[[npt.NDArray[np.floating], Labels, float], Probe]] = {
    "hinge": _hinge,
    "logistic": _logistic,
    "ridge": _ridge,
    "knn": _knn,
}
