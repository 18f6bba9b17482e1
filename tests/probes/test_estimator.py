"""The estimator against scikit-learn's own checks and against LinearSVC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from alexkit import LinearSVM
from tests.probes.conftest import MakeProblem


@parametrize_with_checks([LinearSVM(tol=1e-9, dtype="float64"), LinearSVM()])
def test_scikit_learns_checks(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"fit_intercept": False},
    {"intercept_scaling": 7.0},
    {"class_weight": "balanced"},
    {"class_weight": {0: 3.0, 1: 0.5}},
]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_means_what_it_means_to_linear_svc(
    make_problem: MakeProblem, classes: int, options: dict[str, Any]
) -> None:
    x, y = make_problem(70, 40, classes)
    y = np.where(y == 1, np.arange(70) % 2, y)  # classes of different sizes
    weight = np.random.default_rng(0).uniform(0.1, 3, 70)
    ours = LinearSVM(0.1, tol=1e-12, dtype="float64", **options).fit(x, y, weight)
    theirs = LinearSVC(C=0.1, tol=1e-12, max_iter=1_000_000, random_state=0, **options)
    theirs.fit(x, y, weight)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
    np.testing.assert_allclose(
        ours.intercept_, np.broadcast_to(theirs.intercept_, ours.intercept_.shape), atol=1e-6
    )
    assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(
        ours.decision_function(x), theirs.decision_function(x), atol=1e-5
    )
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))


def test_in_a_pipeline_a_grid_and_a_cross_validation(make_problem: MakeProblem) -> None:
    x, y = make_problem(60, 30, 3)
    names = np.array(["ant", "bee", "cat"])[y]
    pipe = make_pipeline(StandardScaler(), LinearSVM())
    grid = GridSearchCV(pipe, {"linearsvm__C": [1e-3, 1e-2]}, cv=3).fit(x, names)
    theirs = clone(grid).set_params(estimator__linearsvm=LinearSVC(tol=1e-8, max_iter=100_000))
    theirs.fit(x, names)
    assert grid.best_params_ == theirs.best_params_
    assert grid.score(x, names) == theirs.score(x, names)
    assert cross_val_score(pipe, x, names, cv=3).shape == (3,)


def test_a_weight_of_two_is_a_row_twice(make_problem: MakeProblem) -> None:
    x, y = make_problem(40, 15, 3)
    weight = 1.0 + (np.arange(40) % 3 == 0)
    twice = np.repeat(np.arange(40), weight.astype(int))
    weighted = LinearSVM(0.1, tol=1e-12, dtype="float64").fit(x, y, weight)
    repeated = LinearSVM(0.1, tol=1e-12, dtype="float64").fit(x[twice], y[twice])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-8)


def test_plain_hinge_is_liblinears(make_problem: MakeProblem) -> None:
    x, y = make_problem(60, 30, 3)
    ours = LinearSVM(0.1, loss="hinge").fit(x, y)
    theirs = LinearSVC(C=0.1, loss="hinge", random_state=0, max_iter=10_000).fit(x, y)
    np.testing.assert_array_equal(ours.coef_, theirs.coef_)
    assert ours.gap_ is None


@pytest.mark.parametrize(
    ("options", "said"),
    [({"C": 0}, "C must"), ({"tol": -1}, "tol must"), ({"loss": "log"}, "loss must")],
)
def test_parameters_that_cannot_be(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LinearSVM(**options).fit([[0.0], [1.0]], [0, 1])


def test_a_class_whose_rows_weigh_nothing_is_not_there() -> None:
    x, y = np.arange(8.0)[:, None], np.arange(8) % 2
    with pytest.raises(ValueError, match="two classes; found 1 class"):
        LinearSVM().fit(x, y, sample_weight=1.0 - y)
