"""The linear SVM as a scikit-learn estimator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.svm import LinearSVC
from sklearn.utils import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from alexkit.probes.objective import Array, Problems
from alexkit.probes.solver import SMALL, Solver
from alexkit.probes.svm import class_signs

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class LinearSVM(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """LinearSVC's objective, solved for all classes at once and to a certified gap.

    One class against the rest, L2 penalty on the weights and on the intercept.

    Args:
        C: the price of a unit of hinge; > 0.
        loss: ``squared_hinge``, or ``hinge``, which liblinear solves without a certificate.
        tol: the relative duality gap to reach: no class's objective is further above its
            minimum than this fraction of itself. For ``hinge`` it is liblinear's own.
        fit_intercept: whether there is one.
        intercept_scaling: the constant beside every row whose weight is the intercept; the
            larger, the less the intercept is penalised.
        class_weight: what C is multiplied by, per class; ``balanced`` as in scikit-learn.
        dtype: ``float32`` or ``float64``, of the products that search for the optimum; ``auto``
            is ``float64`` up to 500 rows, where it costs nothing, else ``float32``. Where
            float32 does not reach ``tol``, float64 goes on.
        device: where, e.g. ``cuda``.

    Attributes:
        classes_: (K).
        coef_: (K, d) float64, or (1, d) for two classes.
        intercept_: (K) float64, or (1) for two classes; 0 without an intercept.
        n_iter_: steps of the class that took most.
        gap_: (K) or (1), the certified relative duality gaps; None for ``hinge``.
        dtype_: ``float32``, or ``float64`` where it was asked for or needed; None for
            ``hinge``.
        n_features_in_: d.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        loss: Literal["squared_hinge", "hinge"] = "squared_hinge",
        tol: float = 1e-4,
        fit_intercept: bool = True,
        intercept_scaling: float = 1.0,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        dtype: Literal["auto", "float32", "float64"] = "auto",
        device: str = "cpu",
    ) -> None:
        self.C = C
        self.loss = loss
        self.tol = tol
        self.fit_intercept = fit_intercept
        self.intercept_scaling = intercept_scaling
        self.class_weight = class_weight
        self.dtype = dtype
        self.device = device

    def fit(
        self, X: npt.ArrayLike, y: npt.ArrayLike, sample_weight: npt.ArrayLike | None = None
    ) -> LinearSVM:
        """Fits (n, d) rows to (n) labels; (n) ``sample_weight`` multiplies C.

        Raises:
            ValueError: a parameter, the rows or the labels cannot be used.
        """
        self._check()
        x, y = validate_data(self, X, y, dtype=[np.float64, np.float32], order="C")
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        weights = _check_sample_weight(
            sample_weight, x, dtype=np.float64, ensure_non_negative=True
        )
        weighed = np.unique(codes[weights > 0]).size
        if weighed < 2:
            raise ValueError(f"LinearSVM needs rows of two classes; found {weighed} class")
        if self.loss == "hinge":
            return self._fit_hinge(x, np.asarray(y), weights)
        return self._fit_squared(
            x, codes.astype(np.int64), weights, self._factors(np.asarray(y), weights)
        )

    def decision_function(self, X: npt.ArrayLike) -> Array:
        """(n, K) decision values, or (n) for two classes."""
        check_is_fitted(self)
        x = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        values = np.asarray(x @ self.coef_.T + self.intercept_)
        return values[:, 0] if values.shape[1] == 1 else values

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """(n) labels."""
        values = self.decision_function(X)
        best = (values > 0).astype(np.int64) if values.ndim == 1 else values.argmax(axis=1)
        return np.asarray(self.classes_[best])

    def _check(self) -> None:
        for name in ("C", "tol", "intercept_scaling"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)!r}")
        for name, known in (("loss", ("squared_hinge", "hinge")), ("dtype", ("auto", *DTYPES))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {known}, not {getattr(self, name)!r}")

    def _factors(self, y: npt.NDArray[Any], weights: Array) -> Array:
        """(K, 2) what C is multiplied by in each problem for the other rows and the class's.

        As in liblinear: with more than two classes only the class's own rows are weighted.
        """
        own: Array = compute_class_weight(
            self.class_weight, classes=self.classes_, y=y, sample_weight=weights
        )
        if own.size == 2:
            return own[None, :]
        return np.stack([np.ones_like(own), own], axis=1)

    def _fit_squared(
        self, x: npt.NDArray[Any], codes: npt.NDArray[np.int64], weights: Array, factors: Array
    ) -> LinearSVM:
        kept = weights > 0
        if not kept.all():
            x, codes, weights = x[kept], codes[kept], weights[kept]
        _, signs = class_signs(codes)
        auto = "float64" if len(x) <= SMALL else "float32"
        dtype = auto if self.dtype == "auto" else self.dtype
        solver = Solver(
            x,
            problems=signs.shape[1],
            bias=float(self.intercept_scaling) if self.fit_intercept else 0.0,
            dtype=DTYPES[dtype],
            device=self.device,
        )
        problems = Problems.of(signs, self.C, factors=factors, weights=weights)
        found = solver.solve(problems, gap=self.tol)
        self.coef_, self.intercept_ = solver.weights(found.terms)
        self.n_iter_ = int(found.steps.max())
        self.gap_: Array | None = found.certificate.gaps
        self.dtype_: str | None = "float64" if found.wide.any() else dtype
        return self

    def _fit_hinge(self, x: npt.NDArray[Any], y: npt.NDArray[Any], weights: Array) -> LinearSVM:
        solver = LinearSVC(
            C=self.C,
            loss="hinge",
            tol=self.tol,
            fit_intercept=self.fit_intercept,
            intercept_scaling=self.intercept_scaling,
            class_weight=self.class_weight,
            dual=True,
            max_iter=10_000,
            random_state=0,
        ).fit(x, y, sample_weight=weights)
        self.coef_, self.n_iter_, self.gap_ = solver.coef_, int(solver.n_iter_), None
        self.dtype_ = None
        self.intercept_ = np.broadcast_to(solver.intercept_, len(solver.coef_)).astype(float)
        return self
