"""Ranks and correlations equal SciPy's; intervals hold what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import rankdata, spearmanr

from alexkit.analysis import condensed, rsa
from alexkit.analysis.condensed import Condensed, pairs


def ranked(distances: np.ndarray) -> np.ndarray:
    return rsa.rank(distances.astype(np.float32))


@pytest.mark.parametrize("group", [1, 50, 2**24])
@pytest.mark.parametrize("digits", [8, 1])
def test_ranks_are_scipys_also_where_many_are_equal(
    group: int, digits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rsa, "GROUP", group)
    monkeypatch.setattr(condensed, "BLOCK", 300)
    values = np.abs(np.random.default_rng(0).normal(size=2000)).round(digits)
    values[:3] = [0.0, -0.0, 1e-40]
    values = values.astype(np.float32)
    np.testing.assert_array_equal(ranked(values), 2 * rankdata(values))


def test_spearman_is_scipys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensed, "BLOCK", 100)
    rng = np.random.default_rng(1)
    x = np.abs(rng.normal(size=(3, pairs(40)))).round(2).astype(np.float32)
    x[1] += x[0]
    found = rsa.spearman([ranked(row) for row in x])
    np.testing.assert_allclose(found, spearmanr(x.T).statistic, atol=1e-12)


def test_what_lies_on_disk_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condensed, "BLOCK", 100)
    monkeypatch.setattr(rsa, "SLAB_ROWS", 7)
    rng = np.random.default_rng(1)
    x = np.abs(rng.normal(size=(2, pairs(40)))).astype(np.float32)
    files = [
        Condensed.written(tmp_path / f"d{i}", np.float32, [row]) for i, row in enumerate(x)
    ]
    ranks = [rsa.rank(file) for file in files]
    kept = [
        Condensed.written(tmp_path / f"r{i}", np.uint32, np.split(r, [5, 300]))
        for i, r in enumerate(ranks)
    ]
    for row, found, one in zip(x, ranks, kept, strict=True):
        np.testing.assert_array_equal(found, ranked(row))
        np.testing.assert_array_equal(one[:], found)
        assert one[300:310].tolist() == found[300:310].tolist()
    np.testing.assert_array_equal(rsa.spearman(kept), rsa.spearman(ranks))
    on_disk, in_memory = (rsa.bootstrap(which, 40, 30, 0) for which in (kept, ranks))
    np.testing.assert_array_equal(on_disk.low, in_memory.low)


def test_distances_that_are_all_equal_correlate_with_nothing() -> None:
    x = np.stack([np.ones(pairs(6)), np.arange(pairs(6))]).astype(np.float32)
    found = rsa.spearman([ranked(row) for row in x])
    assert np.isnan(found[0]).all()
    assert found[1, 1] == 1
    interval = rsa.bootstrap([ranked(row) for row in x], 6, 50, 0)
    assert np.isnan(interval.low[0, 1])


def test_a_draw_weighs_each_pair_by_how_often_both_were_drawn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rsa, "SLAB_ROWS", 7)
    n, draws, rng = 30, 40, np.random.default_rng(2)
    layers = [ranked(np.abs(rng.normal(size=pairs(n)))) for _ in range(2)]
    w = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), draws)
    i, j = np.triu_indices(n, 1)
    rhos = []
    for counts in w:
        weight = counts[i] * counts[j]
        a, b = (np.repeat(r.astype(float), weight) for r in layers)
        rhos.append(np.corrcoef(a, b)[0, 1])
    found = rsa.bootstrap(layers, n, draws, 5)
    expected = np.percentile(rhos, [2.5, 97.5])
    np.testing.assert_allclose([found.low[0, 1], found.high[0, 1]], expected, atol=1e-4)
    np.testing.assert_allclose([found.low[1, 1], found.high[1, 1]], [1, 1], atol=1e-4)


def test_the_interval_holds_the_correlation_of_the_population() -> None:
    """Two noisy views of one structure: of 40 samples of 30 stimuli, few intervals miss the
    correlation that 1,000 stimuli have."""
    rng = np.random.default_rng(3)

    def sample(n: int) -> tuple[float, rsa.Interval]:
        x = rng.normal(size=(n, 5))
        noise = [x + 0.7 * rng.normal(size=x.shape) for _ in range(2)]
        i, j = np.triu_indices(n, 1)
        layers = [ranked(np.linalg.norm(v[i] - v[j], axis=1)) for v in noise]
        draws = 1 if n > 100 else 200
        return rsa.spearman(layers)[0, 1], rsa.bootstrap(layers, n, draws, 0)

    truth = sample(1000)[0]
    held = [
        interval.low[0, 1] <= truth <= interval.high[0, 1]
        for _, interval in (sample(30) for _ in range(40))
    ]
    assert np.mean(held) > 0.8
