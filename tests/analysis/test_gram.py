"""Distances and kernels from the matrix of inner products equal SciPy's from the rows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from alexkit.analysis import gram as module
from alexkit.analysis.gram import Gram, gram
from alexkit.choices import Metric


def rows(n: int = 60, d: int = 200, seed: int = 0) -> np.ndarray:
    """Rows like those after a ReLU, all with a large part in common."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(0.5, 1, (n, d)) + 5 * rng.random(d), 0).astype(np.float32)


def of(x: np.ndarray, step: int = 64) -> Gram:
    return gram((x[:, a : a + step].copy() for a in range(0, x.shape[1], step)), len(x))


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("step", [1, 64, 500])
@pytest.mark.parametrize("wide", [4096, 0])
def test_distances_equal_scipys(
    metric: Metric, step: int, wide: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WIDE_ROWS", wide)
    x = rows()
    found = np.concatenate(list(of(x, step).distances(metric)))
    expected = pdist(x.astype(np.float64), metric.value)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert found.dtype == np.float32


def test_equal_rows_are_at_distance_zero_and_never_below() -> None:
    x = np.repeat(rows(5), 4, axis=0)
    for metric in Metric:
        found = np.concatenate(list(of(x).distances(metric)))
        assert found.min() >= 0
        assert np.sort(found)[:30].max() < 5e-3 * found.max()


def test_the_kernel_is_the_centred_one() -> None:
    x = rows()
    made = of(x)
    c = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    k = c @ c.T
    scale = np.abs(k).max()
    for row in range(len(x)):
        np.testing.assert_allclose(made.below(row), k[row, row + 1 :], atol=1e-6 * scale)
    np.fill_diagonal(k, 0)
    np.testing.assert_allclose(made.kernel_sums(), k.sum(axis=1), atol=1e-5 * scale)


def test_rows_of_which_a_metric_says_nothing_are_named() -> None:
    x = rows()
    x[3], x[7] = 0.25, 0
    made = of(x)
    assert made.undefined(Metric.CORRELATION).tolist() == [3, 7]
    assert made.undefined(Metric.COSINE).tolist() == [7]
    assert made.undefined(Metric.EUCLIDEAN).tolist() == []
