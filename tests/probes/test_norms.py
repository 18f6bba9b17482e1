"""What is done to features, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from alexkit.errors import UnknownName, UsageError
from alexkit.probes.norms import GOYAL_POOLS, Norm, pooled


def test_l2_makes_rows_of_length_one_and_leaves_zeros() -> None:
    norm = Norm.parse("l2").fit(np.empty((0, 2)))
    assert norm(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist() == [[0.6, 0.8], [0.0, 0.0]]
    other = Norm.parse("l2", offset=1e-5).fit(np.empty((0, 2)))
    assert other(np.array([[3.0, 4.0]]))[0, 0] == 3 / 5.00001


def test_power_is_of_rows_of_length_one_and_keeps_the_sign() -> None:
    x = np.array([[3.0, -4.0]])
    np.testing.assert_allclose(Norm.parse("power").fit(x)(x), [[0.36, -0.64]])
    np.testing.assert_allclose(Norm.parse("power:0.5").fit(x)(x), [[0.6**0.5, -(0.8**0.5)]])


def test_float16_is_computed_in_float64() -> None:
    x = np.full((1, 2), 60000, np.float16)
    np.testing.assert_allclose(Norm.parse("l2").fit(x)(x), np.sqrt(0.5))


@pytest.mark.parametrize("n_d", [(40, 12), (12, 40)])
def test_standardize_and_pca_are_scikit_learns(n_d: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(1, 2, n_d), rng.normal(1, 2, (5, n_d[1]))
    train[:, 3] = test[:, 3] = 7.0  # a constant column
    found = Norm.parse("standardize").fit(train)(test)
    np.testing.assert_allclose(found, StandardScaler().fit(train).transform(test))
    found = Norm.parse("pca:4").fit(train)(test)
    theirs = PCA(4, svd_solver="full").fit(train).transform(test)
    np.testing.assert_allclose(np.abs(found), np.abs(theirs), atol=1e-9)


def test_pca_of_more_than_there_is_keeps_what_varies() -> None:
    x = np.random.default_rng(0).random((5, 30))
    assert Norm.parse("pca:99").fit(x)(x).shape == (5, 4)
    assert Norm.parse("pca:3").fit(x[:1])(x).shape == (5, 0)


@pytest.mark.parametrize("text", ["L2", "pca", "l2:3", "standardize:1", ""])
def test_no_such_norm(text: str) -> None:
    with pytest.raises(UnknownName, match="there is no norm"):
        Norm.parse(text)


@pytest.mark.parametrize("text", ["pca:0", "pca:1.5", "power:-1", "power:nan", "power:"])
def test_no_positive_number(text: str) -> None:
    with pytest.raises(UsageError, match="has no positive number"):
        Norm.parse(text)


def test_pools_leave_what_the_paper_says() -> None:
    """9600, 9216, 9600, 9600 and 9216 numbers of the 2012 network's layers."""
    sizes = {"conv1": (96, 55), "conv2": (256, 27), "conv3": (384, 13)}
    sizes |= {"conv4": (384, 13), "conv5": (256, 13)}
    for (layer, (channels, side)), numbers in zip(
        sizes.items(), (9600, 9216, 9600, 9600, 9216), strict=True
    ):
        x = np.random.default_rng(0).random((2, channels, side, side), np.float32)
        found = pooled(layer, x)
        assert found.shape == (2, numbers)
        kernel, _ = GOYAL_POOLS[layer]
        np.testing.assert_allclose(found[1, 0], x[1, 0, :kernel, :kernel].mean(), rtol=1e-5)
    x = torch.rand(3, 4, 2, 2).numpy()
    np.testing.assert_array_equal(pooled("pool5", x), x.reshape(3, 16))
