"""The SVM against scikit-learn's LinearSVC, and what must hold of any exact solution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from alexkit.errors import DataError
from alexkit.probes.metrics import predictions
from alexkit.probes.objective import Problems, certify, one_vs_rest
from alexkit.probes.svm import LinearModel, class_signs, fit_linear_svm
from tests.probes.conftest import MakeProblem

SHAPES = [(60, 300, 4), (60, 300, 2), (150, 60, 3), (600, 20, 3)]
"""Few rows, two classes, more rows than columns, and so many that they are read in blocks."""


@pytest.mark.parametrize("n_d_classes", SHAPES, ids=str)
@pytest.mark.parametrize("units", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(("dtype", "gap"), [(torch.float32, 2e-5), (torch.float64, 1e-8)])
def test_objective_and_predictions_are_linear_svcs(
    make_problem: MakeProblem,
    n_d_classes: tuple[int, int, int],
    units: float,
    dtype: torch.dtype,
    gap: float,
) -> None:
    x, y = make_problem(*n_d_classes)
    test, _ = make_problem(*n_d_classes, seed=1)
    c = units / (x**2).sum(axis=1).mean()
    model = fit_linear_svm(x, y, c, gap=gap, dtype=dtype)
    solver = LinearSVC(C=c, dual=True, tol=1e-9, max_iter=1_000_000, random_state=1).fit(x, y)

    theirs = LinearModel.of(model.labels, solver.coef_, solver.intercept_, c, None)
    problems = Problems.of(one_vs_rest(y, model.labels), c)
    found, known = (
        certify(x, problems, np.c_[one.weights, one.bias], bias=1.0) for one in (model, theirs)
    )
    np.testing.assert_allclose(found.primal, known.primal, rtol=gap)
    assert model.gap is not None
    assert model.gap <= gap
    right = predictions(model.scores(test)) == solver.predict(test)
    assert right.mean() >= 0.999


def test_every_row_twice_is_c_doubled(make_problem: MakeProblem) -> None:
    x, y = make_problem(40, 15, 3)
    twice = fit_linear_svm(
        np.tile(x, (2, 1)), np.tile(y, 2), 0.02, gap=1e-12, dtype=torch.float64
    )
    doubled = fit_linear_svm(x, y, 0.04, gap=1e-12, dtype=torch.float64)
    np.testing.assert_allclose(twice.weights, doubled.weights, atol=1e-6)
    np.testing.assert_allclose(twice.bias, doubled.bias, atol=1e-6)


def test_labels_need_not_begin_at_zero(make_problem: MakeProblem) -> None:
    x, y = make_problem(40, 15, 3)
    model = fit_linear_svm(x, y * 10 + 5, 0.04, gap=1e-8)
    assert model.labels.tolist() == [5, 15, 25]
    same = fit_linear_svm(x, y, 0.04, gap=1e-8)
    np.testing.assert_array_equal(model.weights, same.weights)


def test_two_classes_are_one_problem() -> None:
    labels, signs = class_signs(np.array([7, 3, 7]))
    assert labels.tolist() == [3, 7]
    assert signs.tolist() == [[1], [-1], [1]]


def test_a_gap_out_of_reach_is_told(make_problem: MakeProblem) -> None:
    x, y = make_problem(60, 50, 4)
    model = fit_linear_svm(x, y, 1e4, gap=1e-300)
    problems = Problems.of(one_vs_rest(y, model.labels), 1e4)
    check = certify(x, problems, np.c_[model.weights, model.bias], bias=1.0)
    assert model.gap is not None
    assert 0 <= model.gap < 1e-9
    # The other certificate finds the same: rounding is all there is.
    assert check.gap < 1e-9


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("rows", [30, 700])
def test_rows_that_are_not_finite_are_refused(
    make_problem: MakeProblem, rows: int, value: float
) -> None:
    x, y = make_problem(rows, 5, 2)
    x[rows // 2, 3] = value
    with np.errstate(invalid="ignore"), pytest.raises(DataError, match="not all finite"):
        fit_linear_svm(x, y, 1.0, gap=1e-3)
