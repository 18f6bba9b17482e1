"""The certificate, on problems whose optimum is known, and against scikit-learn's solution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard
from sklearn.svm import LinearSVC

from alexkit.probes.objective import Array, Certificate, Problems, certify, one_vs_rest


def certified(x: Array, signs: Array, weights: Array, bias: Array, c: float) -> Certificate:
    """In blocks of three rows."""
    problems = Problems.of(signs.astype(np.int8), c)
    return certify(x, problems, np.c_[weights, bias], bias=1.0, block=3)


def orthogonal_problem(c: float) -> tuple[Array, Array, Array, Array, Array]:
    """x, signs, the best weights and intercepts, and the minimum of two problems.

    The rows (x_i, 1) are orthogonal, so each has its own term: with q_i = ‖(x_i, 1)‖² the
    optimum has 1 - s_i f_i = 1 / (1 + 2 C q_i), and the minimum is Σ C / (1 + 2 C q_i).
    """
    n = 8
    corners = hadamard(n).astype(float)  # orthogonal rows, first column all ones
    x = np.concatenate([corners[:, 1:], np.diag(np.linspace(0.0, 3.0, n))], axis=1)
    signs = np.stack([corners[:, 1], corners[:, 4]], axis=1)
    lifted = np.concatenate([x, np.ones((n, 1))], axis=1)
    q = (lifted**2).sum(axis=1)
    alpha = 2 * c / (1 + 2 * c * q)
    best = (lifted.T @ (alpha[:, None] * signs)).T
    minimum = np.full(2, (c / (1 + 2 * c * q)).sum())
    return x, signs, best[:, :-1], best[:, -1], minimum


@pytest.mark.parametrize("c", [1e-4, 0.1, 1.0, 100.0])
def test_at_the_known_optimum_the_gap_is_zero(c: float) -> None:
    x, signs, weights, bias, minimum = orthogonal_problem(c)
    found = certified(x, signs, weights, bias, c)
    np.testing.assert_allclose(found.primal, minimum, rtol=1e-12)
    np.testing.assert_allclose(found.dual, minimum, rtol=1e-12)
    assert abs(found.gap) < 1e-12


@pytest.mark.parametrize("c", [1e-4, 0.1, 1.0, 100.0])
def test_anywhere_else_it_is_a_true_bound(c: float) -> None:
    x, signs, weights, bias, minimum = orthogonal_problem(c)
    rng = np.random.default_rng(0)
    for step in (1e-6, 1e-3, 0.1, 1.0, 10.0):
        off = weights + step * rng.normal(size=weights.shape)
        found = certified(x, signs, off, bias + step * rng.normal(size=2), c)
        assert (found.dual <= minimum * (1 + 1e-12)).all()
        assert (found.primal >= minimum * (1 - 1e-12)).all()
        assert found.gap >= ((found.primal - minimum) / found.primal).max() - 1e-12
        assert found.gap > 0


def test_far_beyond_every_margin_the_dual_is_the_trivial_zero() -> None:
    x = np.array([[1.0], [-1.0]])
    found = certified(x, np.array([[1.0], [-1.0]]), np.array([[50.0]]), np.zeros(1), 1.0)
    assert found.primal.tolist() == [1250.0]
    assert found.dual.tolist() == [0.0]
    assert found.gap == 1.0


def test_it_is_the_objective_that_liblinear_minimises() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 7)), np.arange(60) % 3
    solver = LinearSVC(C=0.3, tol=1e-10, max_iter=100_000, random_state=0).fit(x, y)
    found = certified(x, one_vs_rest(y, np.arange(3)), solver.coef_, solver.intercept_, 0.3)
    assert found.gap < 1e-9


def test_signs() -> None:
    signs = one_vs_rest(np.array([5, 2, 5]), np.array([2, 5]))
    assert signs.tolist() == [[-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0]]


def test_the_gradient_is_the_objectives() -> None:
    """r = β - 2 c ξ s of :mod:`alexkit.probes.descent`, against finite differences."""
    rng = np.random.default_rng(0)
    x, c, step = rng.normal(size=(12, 5)), 0.7, 1e-6
    problems = Problems.of(one_vs_rest(np.arange(12) % 3, np.arange(3)), c)
    u = rng.normal(size=(3, 5))
    signs, costs = problems.block()
    gradient = u - (2 * costs * np.maximum(0, 1 - signs * (u @ x.T)) * signs) @ x
    for j in range(5):
        off = np.zeros(5)
        off[j] = step
        above, below = (certify(x, problems, u + sign * off, bias=0.0) for sign in (1, -1))
        slope = (above.primal - below.primal) / (2 * step)
        np.testing.assert_allclose(slope, gradient[:, j], rtol=1e-6, atol=1e-6)


def test_a_fold_left_out_and_a_sign_of_zero_cost_nothing() -> None:
    signs = np.array([[1, -1], [-1, 0], [1, 1]], np.int8)
    factors = np.array([[1.0, 2.0], [3.0, 4.0]])
    weights = np.array([1.0, 10.0, 100.0])
    problems = Problems.of(
        signs, 0.5, factors=factors, weights=weights, folds=np.array([0, 1, 1])
    )
    assert problems.held_out.tolist() == [0, 0, 1, 1]
    _, costs = problems.block()
    assert costs.tolist() == [[0, 5, 100], [0, 0, 200], [1, 0, 0], [1.5, 0, 0]]
    assert problems.some(np.array([3])).at(1.0).block(slice(0, 1))[1].tolist() == [[3.0]]
