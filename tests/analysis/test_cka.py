"""Unbiased CKA equals the formula written out, and has the invariances it is known for."""

from __future__ import annotations

import numpy as np
import pytest

from alexkit.analysis.cka import unbiased_cka
from alexkit.analysis.gram import gram


def cka(*layers: np.ndarray) -> np.ndarray:
    n = len(layers[0])
    made = [gram([x.astype(np.float32)], n) for x in layers]
    kernels = [np.concatenate([g.below(i) for i in range(n)]) for g in made]
    return unbiased_cka(kernels, [g.kernel_sums() for g in made])


def direct(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, on kernels of the rows as they are."""
    n = len(x)
    k, m = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(m, 0)

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        one = np.trace(a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2))
        return float(one - 2 / (n - 2) * (a @ b).sum()) / (n * (n - 3))

    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


def rows(n: int, d: int, seed: int) -> np.ndarray:
    return np.maximum(np.random.default_rng(seed).normal(0.3, 1, (n, d)), 0)


@pytest.mark.parametrize("n", [4, 5, 200])
def test_it_is_the_formula(n: int) -> None:
    x = rows(n, 300, 0)
    y = x[:, :80] ** 2 + rows(n, 80, 1)
    assert cka(x, y)[0, 1] == pytest.approx(direct(x, y), abs=2e-6)


def test_turning_scaling_and_shifting_change_nothing() -> None:
    x = rows(50, 20, 2)
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(20, 20)))
    assert cka(x, 3 * x @ q + 7)[0, 1] == pytest.approx(1, abs=1e-5)


def test_independent_wide_layers_share_nothing_in_the_mean() -> None:
    """The biased estimate would be near 0.9 here."""
    found = [cka(rows(20, 2000, 2 * s), rows(20, 2000, 2 * s + 1))[0, 1] for s in range(30)]
    assert abs(np.mean(found)) < 0.05


def test_a_layer_that_tells_nothing_apart_has_none() -> None:
    assert np.isnan(cka(np.ones((6, 3)), rows(6, 3, 0))[0, 1])
