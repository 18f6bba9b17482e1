"""Dense SIFT beside scikit-image's own, and its behaviour where it is known beforehand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from alexkit.features.sift import BINS, ORIENTATIONS, SIZES, STEP, dense_sift
from tests.conftest import textured_rgb

feature = pytest.importorskip("skimage.feature", reason="the extra sift is not installed")


def grid(side: int, size: int) -> npt.NDArray[np.float64]:
    """(n, 2) centres of the patches of one size, row and column."""
    centres = np.arange(0, side - BINS * size + 1, STEP) + BINS * size / 2 - 0.5
    return np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2)


def counts(side: int) -> list[int]:
    return [len(grid(side, size)) for size in SIZES]


def test_near_scikit_image_at_upright_keypoints_of_the_same_size() -> None:
    rgb = textured_rgb(3, 96, 96)
    size = SIZES[1]
    begin = counts(96)[0]
    ours = dense_sift(rgb)[begin : begin + counts(96)[1]]
    # A bin is 3 sigma wide there (lambda_descr = 6), and the image as smooth as here.
    reference = feature.SIFT(upsampling=1, n_octaves=1, sigma_in=0.1, sigma_min=size / 6)
    reference.positions = grid(96, size)
    count = len(reference.positions)
    reference.keypoints = reference.positions.astype(int)
    reference.octaves = reference.scales = np.zeros(count, int)
    reference.sigmas = np.full(count, size / 3)
    reference.orientations = np.zeros(count)
    reference.extract(rgb @ np.array([0.299, 0.587, 0.114]) / 255)
    theirs = reference.descriptors.reshape(count, BINS, BINS, ORIENTATIONS).astype(float)
    # Their orientations are counted from down to right, ours from right to down.
    theirs = theirs[..., (2 - np.arange(ORIENTATIONS)) % 8].reshape(count, -1)
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    likeness = (ours * theirs).sum(axis=1)
    assert np.median(likeness) > 0.998
    assert likeness.min() > 0.97
    others = (ours * np.roll(theirs, count // 2, axis=0)).sum(axis=1)
    assert np.median(others) < 0.95, "the test can tell descriptors apart"


def test_shape_order_and_length() -> None:
    found = dense_sift(textured_rgb(0, 64, 64))
    assert found.shape == (sum(counts(64)), 128)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found.min() >= 0


def test_a_ramp_has_one_orientation() -> None:
    """Brightness that grows to the right: orientation 0 and no other, in every bin."""
    ramp = np.broadcast_to(np.arange(0, 192, 3, dtype=np.uint8)[None, :, None], (64, 64, 3))
    found = dense_sift(np.ascontiguousarray(ramp)).reshape(-1, BINS, BINS, ORIENTATIONS)
    assert found[..., 0].min() > 0.1
    assert np.abs(found[..., 1:]).max() < 1e-3
    turned = dense_sift(np.ascontiguousarray(ramp.transpose(1, 0, 2)))
    turned = turned.reshape(-1, BINS, BINS, ORIENTATIONS)
    assert turned[..., 2].min() > 0.1
    np.testing.assert_allclose(np.sort(turned.ravel()), np.sort(found.ravel()), atol=1e-3)


def test_light_and_contrast_do_not_matter() -> None:
    rgb = textured_rgb(5, 48, 48)
    darker = (rgb // 2 + 20).astype(np.uint8)
    a, b = dense_sift(rgb), dense_sift(darker)
    assert np.median((a * b).sum(axis=1)) > 0.99


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (15, 15), (300, 15)])
def test_smaller_than_a_patch(shape: tuple[int, int]) -> None:
    assert dense_sift(textured_rgb(0, *shape)).shape == (0, 128)


def test_the_smallest_patch_alone() -> None:
    assert len(dense_sift(textured_rgb(0, 16, 16))) == 1


@pytest.mark.parametrize("colour", [0, 77, 255])
def test_one_colour_has_none(colour: int) -> None:
    assert dense_sift(np.full((64, 80, 3), colour, np.uint8)).shape == (0, 128)


def test_flat_patches_are_left_out() -> None:
    rgb = np.full((64, 128, 3), 90, np.uint8)
    rgb[:, 96:] = textured_rgb(1, 64, 32)
    found = dense_sift(rgb)
    assert 0 < len(found) < len(dense_sift(textured_rgb(1, 64, 128))) / 2
    assert np.isfinite(found).all()
