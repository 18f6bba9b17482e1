"""Intervals and paired tests against values that are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from alexkit.probes.compare import bootstrap, mcnemar


def test_mcnemar_is_the_binomial_test() -> None:
    first = np.array([True] * 10 + [False] * 2 + [True] * 30)
    second = np.array([False] * 10 + [True] * 2 + [True] * 30)
    found = mcnemar(first, second)
    assert (found.first_only, found.second_only) == (10, 2)
    assert found.p == pytest.approx(2 * binom.cdf(2, 12, 0.5))
    assert mcnemar(second, first).p == found.p
    assert mcnemar(first, first).p == 1.0


def test_the_interval_is_as_wide_as_theory_says() -> None:
    y = np.repeat(np.arange(2), 500)
    right = np.random.default_rng(0).random(1000) < 0.8
    found = bootstrap(right, y, seed=3)
    half = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 1000)
    for low, high in found.values():
        assert low == pytest.approx(right.mean() - half, abs=0.004)
        assert high == pytest.approx(right.mean() + half, abs=0.004)
    assert bootstrap(right, y, seed=3) == found
    assert bootstrap(right, y, seed=4) != found


def test_a_class_that_is_not_drawn_does_not_count() -> None:
    found = bootstrap(np.array([True, False]), np.array([0, 5]), seed=0)
    assert found["mean_class_accuracy"] == (0.0, 1.0)
