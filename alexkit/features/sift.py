"""Dense SIFT: Lowe's descriptor (IJCV 2004, section 6) on a grid, upright, at several sizes.

scikit-image has SIFT at keypoints only, one Python loop a keypoint: on this grid it takes
tens of times longer. On a grid all patches share the same sums, so each spatial axis is one
matrix product.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from alexkit.images.preprocess import Pixels

Floats = npt.NDArray[np.float32]

BINS = 4
"""Spatial bins along each side of a patch (Lowe, section 6.2)."""
ORIENTATIONS = 8
LENGTH = BINS * BINS * ORIENTATIONS
CLIP = 0.2
"""Largest component after the first normalisation (Lowe, section 6.1)."""
WINDOW = 2.0
"""Standard deviation in bins of the window over a patch: half its side (Lowe, section 6.1)."""
SIZES = (4, 6, 8, 10)
"""Pixels a bin; a patch has 4 × 4 of them (VLFeat ``vl_phow.m``, Sizes)."""
SMOOTHING = 6.0
"""A bin of ``size`` pixels sees the image smoothed by size / 6 (``vl_phow.m``, Magnif)."""
STEP = 4
"""Pixels between patches (Sánchez et al., IJCV 2013)."""
CONTRAST = 0.005
"""Mean gradient, of 1 a pixel, below which a patch is flat (``vl_phow.m``,
ContrastThreshold; there its descriptor becomes zero, here there is none)."""
LUMA = (0.299, 0.587, 0.114)
"""Grey from R, G, B: ITU-R BT.601."""


def dense_sift(rgb: Pixels) -> Floats:
    """Descriptors of all patches that lie in the image and are not flat.

    Args:
        rgb: (H, W, 3) uint8.

    Returns:
        (n, 128) float32 of length 1 each, by size, then from top left to bottom right; in a
        descriptor the orientation runs fastest, then x, then y. n is 0 for an image of one
        colour, or smaller than a patch (16 pixels).
    """
    grey = (rgb @ np.array(LUMA, np.float32) / 255).astype(np.float32)
    found = [_of_size(grey, size) for size in SIZES if min(grey.shape) >= BINS * size]
    return np.concatenate([np.empty((0, LENGTH), np.float32), *found])


def _of_size(grey: Floats, size: int) -> Floats:
    maps = _oriented(gaussian_filter(grey, size / SMOOTHING))
    down, across = (_bins(length, size) for length in grey.shape)
    sums = down @ maps @ across.T
    sums = sums.reshape(ORIENTATIONS, len(down) // BINS, BINS, len(across) // BINS, BINS)
    found = sums.transpose(1, 3, 2, 4, 0).reshape(-1, LENGTH)
    found = found[found.sum(axis=1) >= CONTRAST * (BINS * size) ** 2]
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    np.minimum(found, CLIP, out=found)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _oriented(grey: Floats) -> Floats:
    """(8, H, W): the gradient's length, shared by the two orientations nearest to its own."""
    dy = np.gradient(grey, axis=0)
    dx = np.gradient(grey, axis=1)
    length = np.hypot(dy, dx)
    turn = np.arctan2(dy, dx) * np.float32(ORIENTATIONS / (2 * np.pi))
    low = np.floor(turn)
    share = turn - low
    first = low.astype(np.intp) % ORIENTATIONS
    maps = np.zeros((ORIENTATIONS, *grey.shape), np.float32)
    y, x = np.ogrid[: grey.shape[0], : grey.shape[1]]
    maps[first, y, x] = length * (1 - share)
    maps[(first + 1) % ORIENTATIONS, y, x] = length * share
    return maps


@lru_cache(maxsize=32)
def _bins(length: int, size: int) -> Floats:
    """(P * 4, length): along one axis, how much each pixel counts in each bin of P patches.

    A pixel is shared by the two nearest bins, and bins far from the patch's centre count
    less, by the window's value at their centre.
    """
    starts = np.arange(0, length - BINS * size + 1, STEP)
    places = (np.arange(BINS) + 0.5) * size
    centres = starts[:, None] + places - 0.5
    near = 1 - np.abs(np.arange(length) - centres[..., None]) / size
    window = np.exp(-0.5 * ((places / size - BINS / 2) / WINDOW) ** 2)
    return (near.clip(min=0) * window[:, None]).reshape(-1, length).astype(np.float32)
