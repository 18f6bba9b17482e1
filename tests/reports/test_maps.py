"""Maps against numpy and scikit-learn, and for rows that span nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from alexkit.reports.maps import BEFORE, principal, tsne


@pytest.mark.parametrize(("n", "d"), [(30, 80), (80, 30)])
def test_principal_components_are_scikit_learns(n: int, d: int) -> None:
    x = np.random.default_rng(0).normal(2, 1, (n, d)) * np.linspace(1, 3, d)
    points, shares = principal(x, 4)
    known = PCA(4, svd_solver="full").fit(x)
    assert np.abs(points) == pytest.approx(np.abs(known.transform(x)), rel=1e-3, abs=1e-4)
    assert shares == pytest.approx(known.explained_variance_ratio_, rel=1e-6)


def test_rows_that_span_less_leave_zeros() -> None:
    line = np.outer(np.arange(6.0), np.ones(9))
    points, shares = principal(line, 3)
    assert np.abs(points[:, 1:]).max() < 1e-3
    assert shares[0] == pytest.approx(1)
    points, shares = principal(np.ones((6, 4)), 2)
    assert not points.any()
    assert not shares.any()


def test_tsne_keeps_neighbours_together_and_repeats() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    x = rng.normal(0, 1, (60, 40)) + rng.normal(0, 8, (3, 40))[group]
    points, _ = principal(x, BEFORE)
    xy = tsne(points, 0)
    assert xy.shape == (60, 2)
    far = np.linalg.norm(xy[:, None] - xy[None], axis=2)
    np.fill_diagonal(far, np.inf)
    assert (group[far.argmin(axis=1)] == group).all()
    assert (tsne(points, 0) == xy).all()


def test_equal_rows_are_no_error() -> None:
    assert not tsne(principal(np.ones((7, 5)), BEFORE)[0], 0).any()
    pairs = np.repeat(np.random.default_rng(0).normal(0, 1e30, (5, 8)), 4, axis=0)
    points, _ = principal(pairs.astype(np.float32), BEFORE)
    assert np.isfinite(tsne(points, 0)).all()
