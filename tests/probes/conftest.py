"""Features as a network gives them: after a ReLU, mostly zeros, more columns than rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

Problem = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]
MakeProblem = Callable[..., Problem]


@pytest.fixture
def make_problem() -> MakeProblem:
    """``(x (n, d), y (n))``; ``apart`` says how far the classes are from one another."""

    def make(n: int, d: int, classes: int, *, apart: float = 0.3, seed: int = 0) -> Problem:
        rng = np.random.default_rng(seed)
        y = np.arange(n) % classes
        centres = rng.normal(0, apart, (classes, d))
        return np.maximum(rng.normal(-0.8, 1.0, (n, d)) + centres[y], 0.0), y

    return make
