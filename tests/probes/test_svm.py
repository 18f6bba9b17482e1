"""The SVM against scikit-learn's LinearSVC, and what must hold of any exact solution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from alexkit.probes.metrics import predictions
from alexkit.probes.objective import certify, one_vs_rest
from alexkit.probes.svm import MAX_ITER, fit_linear_svm, row_space

if TYPE_CHECKING:
    from tests.probes.conftest import MakeProblem

SHAPES = [(60, 300, 4), (60, 300, 2), (150, 60, 3), (400, 20, 3)]
"""Few rows (dual), two classes, more rows than columns (dual), many more (primal)."""


@pytest.mark.parametrize("n_d_classes", SHAPES, ids=str)
@pytest.mark.parametrize("units", [0.01, 1.0, 30.0])
def test_objective_and_predictions_are_linear_svcs(
    make_problem: MakeProblem, n_d_classes: tuple[int, int, int], units: float
) -> None:
    x, y = make_problem(*n_d_classes)
    test, _ = make_problem(*n_d_classes, seed=1)
    c = units / (x**2).sum(axis=1).mean()
    model = fit_linear_svm(x, y, c, gap=1e-8)
    solver = LinearSVC(
        C=c, loss="squared_hinge", dual=True, tol=1e-9, max_iter=1_000_000, random_state=1
    ).fit(x, y)

    weights, bias = solver.coef_, solver.intercept_
    if len(weights) == 1:
        weights, bias = np.concatenate([-weights, weights]), np.concatenate([-bias, bias])
    signs = one_vs_rest(y, model.labels)
    ours = certify(x, signs, model.weights, model.bias, c)
    theirs = certify(x, signs, weights, bias, c)
    np.testing.assert_allclose(ours.primal, theirs.primal, rtol=1e-6)
    assert ours.gap == pytest.approx(model.gap)
    assert model.gap <= 1e-8
    np.testing.assert_array_equal(predictions(model.scores(test)), solver.predict(test))


def test_the_same_in_the_space_of_the_rows(make_problem: MakeProblem) -> None:
    x, y = make_problem(90, 400, 4)
    rows = row_space(x)
    assert rows.shape == (90, 90)
    np.testing.assert_allclose(rows @ rows.T, x @ x.T, rtol=1e-10)
    train = np.arange(70)
    c = 1.0 / (x**2).sum(axis=1).mean()
    plain = fit_linear_svm(x[train], y[train], c, gap=1e-10)
    rotated = fit_linear_svm(rows[train], y[train], c, gap=1e-10)
    np.testing.assert_allclose(rotated.scores(rows), plain.scores(x), atol=1e-4)


def test_the_space_of_rows_that_repeat_is_smaller(make_problem: MakeProblem) -> None:
    x, _ = make_problem(20, 100, 2)
    repeated = np.concatenate([x, x, np.zeros((3, 100))])
    rows = row_space(repeated)
    assert rows.shape == (43, 20)
    np.testing.assert_allclose(rows @ rows.T, repeated @ repeated.T, atol=1e-10)


def test_no_rotation_where_it_gains_nothing(make_problem: MakeProblem) -> None:
    x, _ = make_problem(30, 30, 2)
    assert row_space(x) is x


def test_every_row_twice_is_c_doubled(make_problem: MakeProblem) -> None:
    x, y = make_problem(40, 15, 3)
    twice = fit_linear_svm(np.tile(x, (2, 1)), np.tile(y, 2), 0.02, gap=1e-12)
    doubled = fit_linear_svm(x, y, 0.04, gap=1e-12)
    np.testing.assert_allclose(twice.weights, doubled.weights, atol=1e-5)
    np.testing.assert_allclose(twice.bias, doubled.bias, atol=1e-5)


def test_labels_need_not_begin_at_zero(make_problem: MakeProblem) -> None:
    x, y = make_problem(40, 15, 3)
    model = fit_linear_svm(x, y * 10 + 5, 0.04, gap=1e-8)
    assert model.labels.tolist() == [5, 15, 25]
    same = fit_linear_svm(x, y, 0.04, gap=1e-8)
    np.testing.assert_array_equal(model.weights, same.weights)


def test_the_seed_decides_the_last_digits(make_problem: MakeProblem) -> None:
    x, y = make_problem(60, 300, 4)
    first, second = (fit_linear_svm(x, y, 0.01, gap=1e-3, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.weights, second.weights)


def test_a_gap_out_of_reach_is_told_without_a_warning(
    make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_ITER > 1000
    monkeypatch.setattr("alexkit.probes.svm.MAX_ITER", 3)
    x, y = make_problem(60, 50, 4)
    model = fit_linear_svm(x, y, 1e6, gap=1e-12)
    assert model.gap > 1e-6
    check = certify(x, one_vs_rest(y, model.labels), model.weights, model.bias, 1e6)
    assert model.gap == pytest.approx(check.gap)
