"""Rows in blocks and in other coordinates hold what the rows held."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from alexkit.probes import rows as module
from alexkit.probes.leaks import find_leaks
from alexkit.probes.rows import coordinates, inner_products, row_keys
from alexkit.probes.splits import Division

if TYPE_CHECKING:
    from alexkit.probes.splits import Rows


class Stored:
    """Rows that are read by index, as those of a file are."""

    def __init__(self, x: np.ndarray) -> None:
        self.x, self.shape = x, x.shape

    def __getitem__(self, rows: Rows) -> np.ndarray:
        return self.x[rows]


def test_blocks_and_panels_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).random((23, 70), np.float32)
    expected = x.astype(float) @ x.T.astype(float)
    monkeypatch.setattr(module, "READ_BYTES", 5 * 4 * 70)
    monkeypatch.setattr(module, "COLUMNS", 16)
    np.testing.assert_allclose(inner_products(Stored(x)), expected, rtol=1e-12)
    np.testing.assert_allclose(inner_products(x), expected, rtol=1e-12)


def test_coordinates_have_the_inner_products() -> None:
    x = np.random.default_rng(0).normal(size=(30, 100))
    x[7], x[8], x[9], x[10] = x[3], 0.0, 2 * x[4], 1e-9 * x[5]
    gram = x @ x.T
    turned = coordinates(gram)
    np.testing.assert_allclose(turned @ turned.T, gram, atol=1e-9 * np.abs(gram).max())
    assert not turned[8].any()
    np.testing.assert_allclose(np.linalg.norm(turned[10]), np.linalg.norm(x[10]))
    assert not coordinates(np.zeros((3, 3))).any()


def test_keys_are_of_equal_rows_only() -> None:
    x = np.random.default_rng(0).random((6, 4), np.float32)
    x[4], x[5] = x[1], np.nextafter(x[2], 1)
    x[3, 1] = np.inf
    keys, broken = row_keys(x)
    assert keys.tolist() == [0, 1, 2, 3, 1, 5]
    assert broken.tolist() == [3]


def test_leaks_are_equal_rows_and_small_angles() -> None:
    x = np.random.default_rng(0).normal(size=(10, 50))
    x[5] = x[0]  # equal
    x[6] = 3 * x[1]  # the same direction
    x[7] = x[2] + 0.02 * x[8]  # a small angle
    x[8] = x[3] + 0.2 * x[9]  # a larger one
    x[9] = x[4] = 0.0  # equal, though without a direction
    keys, _ = row_keys(x)
    found = find_leaks(x, [Division(np.arange(5), np.arange(5, 10))], keys=keys)
    assert found.identical.tolist() == [5, 9]
    assert found.near.tolist() == [6, 7]
    assert found.pairs.tolist() == [[5, 0], [6, 1], [7, 2], [9, 4]]
    none = find_leaks(x, [Division(np.array([0, 5]), np.array([1, 2]))], keys=keys)
    assert none.pairs.shape == (0, 2)
