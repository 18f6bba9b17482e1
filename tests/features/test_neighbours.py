"""Neighbours against scikit-learn and by hand, whatever the blocks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from alexkit.choices import Metric
from alexkit.features import neighbours
from alexkit.features.neighbours import nearest


@pytest.mark.parametrize("metric", list(Metric))
@pytest.mark.parametrize("values", [1 << 22, 40 * 7, 40])
def test_as_all_distances_sorted(
    metric: Metric, values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "BLOCK_VALUES", values)
    rng = np.random.default_rng(0)
    x = np.maximum(rng.normal(1, 2, (200, 40)), 0).astype(np.float32) * rng.uniform(1, 9)
    rows = rng.permutation(200)[:150]
    queries = x[rows[:9]]
    every = cdist(queries.astype(np.float64), x.astype(np.float64), metric.value)
    every[np.arange(9), rows[:9]] = np.inf
    every[:, np.setdiff1d(np.arange(200), rows)] = np.inf
    found = nearest(queries, rows, lambda r: x[r], 6, metric=metric, skip=rows[:9])
    assert (found.rows == np.argsort(every, axis=1, kind="stable")[:, :6]).all()
    expected = np.take_along_axis(every, found.rows, axis=1)
    assert found.distances == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_near_rows_far_from_the_origin() -> None:
    """A matrix product rounds these distances away; the differences do not."""
    x = 1e6 + np.arange(50, dtype=np.float64)[:, None] * np.full((1, 3), 1e-4)
    found = nearest(x[:1], np.arange(50), lambda r: x[r], 3, skip=np.array([0]))
    assert found.rows.tolist() == [[1, 2, 3]]


def test_equal_rows_come_in_their_order_and_few_rows_are_filled_up() -> None:
    x = np.zeros((3, 2, 2))
    found = nearest(x[:1] + 1, np.array([2, 0, 1]), lambda r: x[r], 5)
    assert found.rows.tolist() == [[0, 1, 2, -1, -1]]
    assert found.distances.tolist() == [[2, 2, 2, np.inf, np.inf]]


def test_a_row_without_direction() -> None:
    x = np.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
    found = nearest(x[1:2], np.arange(3), lambda r: x[r], 3, metric=Metric.COSINE)
    assert found.rows.tolist() == [[1, 2, 0]]
    assert found.distances[0] == pytest.approx([0, 0, 1])
