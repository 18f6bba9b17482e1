"""Fisher vectors against the definition: the gradient of a mixture's log-likelihood."""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alexkit.errors import DamagedFile, DataError, OutOfSpace, UsageError
from alexkit.features.fisher import Codebook, Recipe, sample, scikit_image

pytest.importorskip("skimage.feature", reason="the extra sift is not installed")

Doubles = npt.NDArray[np.float64]
SMALL = Recipe(seed=3, dimensions=3, components=2, rounds=20)
ABOUT = {"data": "77", "recipe": {"seed": 3}}


def descriptors(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Two clusters in 128 dimensions, of unequal spread along the axes."""
    rng = np.random.default_rng(seed)
    spread = np.linspace(3, 0.1, 128)
    centres = rng.normal(size=(2, 128)) * spread
    return (
        centres[rng.integers(2, size=count)] + rng.normal(size=(count, 128)) * spread
    ).astype(np.float32)


def log_likelihood(x: Doubles, weights: Doubles, means: Doubles, spreads: Doubles) -> float:
    """Mean over the rows of log sum_k w_k N(x; mean_k, spread_k²), by its definition."""
    z = (x[:, None] - means) / spreads
    density = np.exp(-0.5 * (z**2).sum(-1)) / np.prod(np.sqrt(2 * np.pi) * spreads, axis=-1)
    return float(np.log(density @ weights).mean())


def slope(function: Any, at: Doubles, step: float = 1e-5) -> Doubles:
    """The gradient by central differences."""
    found = np.empty_like(at)
    for index in np.ndindex(at.shape):
        move = np.zeros_like(at)
        move[index] = step
        found[index] = (function(at + move) - function(at - move)) / (2 * step)
    return found


def test_equal_to_the_gradient_of_the_log_likelihood() -> None:
    """By softmax weights, means and standard deviations (Sánchez et al. 2013, section 2), each
    divided by the root of its Fisher information (w; w / s²; 2 w / s²)."""
    given = descriptors(40)
    book = Codebook.fit(descriptors(500, seed=1), SMALL)
    x = ((given - book.centre) @ book.axes).astype(float)
    weights, means = book.weights.astype(float), book.means.astype(float)
    weights /= weights.sum()
    spreads = np.sqrt(book.variances.astype(float))

    def softmax(a: Doubles) -> Doubles:
        return np.exp(a) / np.exp(a).sum()

    by_weight = slope(lambda a: log_likelihood(x, softmax(a), means, spreads), np.log(weights))
    by_mean = slope(lambda m: log_likelihood(x, weights, m, spreads), means)
    by_spread = slope(lambda s: log_likelihood(x, weights, means, s), spreads)
    root = np.sqrt(weights)[:, None]
    expected = np.concatenate(
        [
            by_weight / np.sqrt(weights),
            (by_mean * spreads / root).ravel(),
            -(by_spread * spreads / (root * np.sqrt(2))).ravel(),
        ]
    )
    expected = np.sign(expected) * np.sqrt(np.abs(expected))
    expected /= np.linalg.norm(expected)
    found = book.encode(given)
    assert found.shape == (SMALL.length,) == (2 * (2 * 3 + 1),)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(expected).min() > 1e-3, "every component is put to the test"


def test_of_unit_length_and_blind_to_order_and_repetition() -> None:
    book = Codebook.fit(descriptors(500), SMALL)
    given = descriptors(50, seed=4)
    found = book.encode(given)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(book.encode(given[::-1]), found, atol=1e-3)
    np.testing.assert_allclose(book.encode(np.concatenate([given] * 3)), found, atol=1e-3)
    assert np.abs(book.encode(descriptors(50, seed=5)) - found).max() > 0.01


def test_the_same_seed_gives_the_same_bits() -> None:
    given = descriptors(500)
    first, again = Codebook.fit(given, SMALL), Codebook.fit(given.copy(), SMALL)
    assert first.sha256() == again.sha256()
    np.testing.assert_array_equal(first.encode(given[:30]), again.encode(given[:30]))
    assert first.sha256() != Codebook.fit(given[1:], SMALL).sha256()
    crowded = {"dimensions": 3, "components": 40, "rounds": 2}
    seeds = [Codebook.fit(given, Recipe(seed, **crowded)).sha256() for seed in (1, 2)]
    assert seeds[0] != seeds[1]


def test_descriptors_that_are_all_the_same() -> None:
    """Strange, but no reason to fall: variances have a floor."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        book = Codebook.fit(np.ones((300, 128), np.float32), SMALL)
    assert np.isfinite(book.encode(descriptors(5))).all()


def test_too_few_descriptors() -> None:
    with pytest.raises(DataError, match="2 SIFT descriptors, too few for 2 Gaussians"):
        Codebook.fit(descriptors(2), SMALL)


def test_a_sample_is_drawn_by_seed_and_row() -> None:
    given = descriptors(100)
    taken = sample(given, 10, seed=1, row=7)
    assert taken.shape == (10, 128)
    np.testing.assert_array_equal(taken, sample(given, 10, seed=1, row=7))
    places = [int(np.flatnonzero((given == one).all(axis=1))[0]) for one in taken]
    assert places == sorted(set(places))
    assert (sample(given, 10, seed=2, row=7) != taken).any()
    assert (sample(given, 10, seed=1, row=8) != taken).any()
    assert sample(given, 100, seed=1, row=7) is given


class TestFile:
    @pytest.fixture
    def book(self) -> Codebook:
        return Codebook.fit(descriptors(500), SMALL)

    def test_round_trip(self, book: Codebook, tmp_path: Path) -> None:
        path = tmp_path / "f.h5.codebook.npz"
        book.save(path, ABOUT)
        read = Codebook.load(path, ABOUT)
        assert read is not None
        assert read.sha256() == book.sha256()
        given = descriptors(20)
        np.testing.assert_array_equal(read.encode(given), book.encode(given))
        assert [p.name for p in tmp_path.iterdir()] == [path.name]
        first = path.read_bytes()
        book.save(path, ABOUT)
        assert path.read_bytes() == first

    def test_of_another_recipe(self, book: Codebook, tmp_path: Path) -> None:
        book.save(tmp_path / "c.npz", ABOUT)
        assert Codebook.load(tmp_path / "c.npz", ABOUT | {"data": "78"}) is None

    def test_damaged(self, book: Codebook, tmp_path: Path) -> None:
        path = tmp_path / "c.npz"
        book.save(path, ABOUT)
        saved = path.read_bytes()
        flipped = bytearray(saved)
        flipped[len(saved) // 2] ^= 1
        other, without_tables = io.BytesIO(), io.BytesIO()
        np.save(other, np.zeros(3))
        np.savez(without_tables, about=np.array(json.dumps(ABOUT)))
        for data in (saved[:-100], flipped, b"", other.getvalue(), without_tables.getvalue()):
            path.write_bytes(data)
            with pytest.raises(DamagedFile, match="is no codebook"):
                Codebook.load(path, ABOUT)

    def test_full_disk(self, book: Codebook, small_disk: Path) -> None:
        with contextlib.suppress(OSError):
            (small_disk / "filler").write_bytes(bytes(2 * 2**20))
        with pytest.raises(OutOfSpace):
            book.save(small_disk / "c.npz", ABOUT)
        assert not (small_disk / "c.npz").exists()


def test_scikit_image_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    with pytest.raises(UsageError, match="scikit-image") as missing:
        scikit_image()
    assert missing.value.hint == 'type: pip install "alexkit[sift]"'
