"""Random numbers from (seed, epoch, row): the published hash, and no structure left."""

from __future__ import annotations

import numpy as np

from alexkit.images.draws import _mixed, below, normal, uniform, words


def test_the_hash_is_splitmix64() -> None:
    # The generator's published first outputs from seed 1234567 (state += gamma, then mixed).
    gamma = 0x9E3779B97F4A7C15
    state = np.array([(1234567 + n * gamma) % 2**64 for n in (1, 2, 3)], np.uint64)
    assert _mixed(state).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


def test_words_are_a_function_of_each_argument() -> None:
    rows = np.arange(1000)
    base = words("a", 0, 0, rows, 2)
    for other in (
        words("b", 0, 0, rows, 2),
        words("a", 1, 0, rows, 2),
        words("a", -1, 0, rows, 2),
        words("a", 0, 1, rows, 2),
        words("a", 0, 0, rows + 1000, 2),
    ):
        assert not np.intersect1d(base, other).size
    assert len(np.unique(base)) == 2000
    np.testing.assert_array_equal(words("a", 0, 0, rows[500:], 1)[:, 0], base[500:, 0])


def test_each_bit_is_set_half_of_the_time() -> None:
    bits = words("bits", 7, 3, np.arange(20_000), 1)
    ones = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).mean(axis=0)
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(20_000)


def test_neighbouring_rows_seeds_and_epochs_are_uncorrelated() -> None:
    rows = np.arange(20_000)
    base = uniform(words("u", 0, 0, rows, 1)[:, 0])
    others = [
        uniform(words("u", 0, 0, rows + 1, 1)[:, 0]),
        uniform(words("u", 1, 0, rows, 1)[:, 0]),
        uniform(words("u", 0, 1, rows, 1)[:, 0]),
        uniform(words("u", 0, 0, rows, 2)[:, 1]),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(20_000)


def test_below_covers_its_range() -> None:
    bits = words("below", 0, 0, np.arange(33_000), 1)[:, 0]
    counts = np.bincount(below(bits, 33), minlength=33)
    assert len(counts) == 33
    assert counts.min() > 850
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert below(ends, 33).tolist() == [0, 32]
    assert below(ends, 2**31).tolist() == [0, 2**31 - 1]


def test_normal_has_the_moments_of_a_normal() -> None:
    z = normal(words("z", 0, 0, np.arange(50_000), 4))
    assert z.shape == (50_000, 2)
    assert abs(z.mean()) < 0.02
    assert abs(z.std() - 1) < 0.02
    assert abs((z**4).mean() - 3) < 0.15
    extremes = normal(np.array([[0, 0], [2**64 - 1, 0]], np.uint64))
    assert np.isfinite(extremes).all()
