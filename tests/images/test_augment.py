"""The training transform: independent of the batch, and with the published statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from alexkit.images.augment import COLOR_AXES, COLOR_SIGMA, _gathered, _sliced, augment
from alexkit.images.preprocess import Preprocess

SMALL = Preprocess(resize=40, crop=32)
PLAIN = Preprocess(resize=40, crop=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
"""Leaves 0 to 255 as it is, so that what augment did can be read from the pixels."""


def images(count: int, side: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    shape = (count, side, side, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def coordinates(count: int, side: int = 40) -> torch.Tensor:
    """Images whose red is the row and whose green is the column."""
    line = torch.arange(side, dtype=torch.uint8)
    pixels = torch.zeros((count, side, side, 3), dtype=torch.uint8)
    pixels[..., 0] = line[:, None]
    pixels[..., 1] = line
    return pixels


def test_pixels_do_not_depend_on_the_batch() -> None:
    rows = np.arange(100, 161)
    pixels = images(len(rows))
    whole = augment(pixels, SMALL, seed=3, epoch=5, rows=rows)
    for size in (1, 2, 7, 60):
        parts = [
            augment(pixels[i : i + size], SMALL, seed=3, epoch=5, rows=rows[i : i + size])
            for i in range(0, len(rows), size)
        ]
        assert torch.equal(torch.cat(parts), whole)
    shuffled = np.random.default_rng(0).permutation(len(rows))
    mixed = augment(pixels[shuffled], SMALL, seed=3, epoch=5, rows=rows[shuffled])
    assert torch.equal(mixed, whole[torch.from_numpy(shuffled)])


def test_seed_epoch_and_row_each_change_the_pixels() -> None:
    pixels, rows = images(1).expand(20, -1, -1, -1), np.arange(20)
    base = augment(pixels, SMALL, seed=0, epoch=0, rows=rows)
    assert not torch.equal(base, augment(pixels, SMALL, seed=1, epoch=0, rows=rows))
    assert not torch.equal(base, augment(pixels, SMALL, seed=0, epoch=1, rows=rows))
    assert len({image.numpy().tobytes() for image in base}) == 20


def test_known_pixels() -> None:
    # Recorded: a change here means that runs no longer continue as they began.
    x = augment(coordinates(3), PLAIN, seed=1, epoch=2, rows=np.array([0, 1, 10**12]))
    corner = x[:, :, 0, 0].double().numpy()
    known = [
        [4.296763, 1.037107, -1.030583],
        [-3.428411, -4.785315, -15.240495],
        [5.047519, 29.964897, -1.9489],
    ]
    np.testing.assert_allclose(corner, known, atol=1e-4)


def test_every_crop_and_flip_comes_up_equally_often() -> None:
    count = 20_000
    pixels = coordinates(1, side=4).expand(count, -1, -1, -1)
    how = replace(PLAIN, resize=4, crop=2)
    x = augment(pixels, how, seed=0, epoch=0, rows=np.arange(count), color=False)
    top, left = x[:, 0, 0, 0].long(), x[:, 1, 0].min(dim=1).values.long()
    flipped = (x[:, 1, 0, 0] > x[:, 1, 0, 1]).long()
    counts = torch.bincount((top * 3 + left) * 2 + flipped, minlength=18).double()
    # Chi squared with 17 degrees of freedom: 40.8 is the 0.1 % point.
    assert ((counts - count / 18) ** 2 / (count / 18)).sum() < 40.8
    assert counts.min() > 0


def test_color_noise_has_the_published_covariance() -> None:
    count = 50_000
    grey = torch.full((1, 2, 2, 3), 100, dtype=torch.uint8).expand(count, -1, -1, -1)
    how = replace(PLAIN, resize=2, crop=2)
    x = augment(grey, how, seed=0, epoch=0, rows=np.arange(count))
    assert torch.equal(x, x[:, :, :1, :1].expand_as(x))  # one draw an image
    noise = x[:, :, 0, 0].double().numpy() - 100
    # Along the author's axes: independent, s.d. 1.97, 3.71 and 12.18 grey levels.
    along = noise @ np.array(COLOR_AXES)
    np.testing.assert_allclose(along.std(axis=0), [1.972, 3.709, 12.178], rtol=0.02)
    np.testing.assert_allclose(along.mean(axis=0) / along.std(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(np.corrcoef(along.T), np.eye(3), atol=0.02)
    assert np.abs(along[:, 2]).max() / 12.178 > 3.5  # tails, as a normal has
    assert COLOR_SIGMA == (19.7208, 37.0939, 121.7801)


def test_noise_is_scaled_and_ordered_like_the_pixels() -> None:
    pixels, rows = images(4), np.arange(4)
    rgb = augment(pixels, PLAIN, seed=0, epoch=0, rows=rows)
    mean, std = (30.0, 20.0, 10.0), (4.0, 2.0, 1.0)
    how = replace(PLAIN, mean=mean, std=std, scale=0.5, channels="BGR")
    bgr = augment(pixels, how, seed=0, epoch=0, rows=rows)
    mean, std = (torch.tensor(values)[:, None, None] for values in (mean, std))
    torch.testing.assert_close(bgr, (rgb.flip(1) * 0.5 - mean) / std)


def test_without_color_a_crop_as_large_as_the_image_only_flips() -> None:
    pixels = images(30, side=32)
    x = augment(pixels, SMALL, seed=0, epoch=0, rows=np.arange(30), color=False)
    plain = SMALL.normalise(pixels)
    same = [torch.equal(a, b) for a, b in zip(x, plain, strict=True)]
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(x, plain, strict=True)]
    assert 5 < sum(same) < 25
    assert sum(same) + sum(mirrored) == 30


def test_the_two_ways_to_crop_agree() -> None:
    pixels = images(9)
    corners = torch.tensor(
        [[0, 0], [8, 8], [0, 8], [3, 5], [1, 1], [7, 2], [8, 0], [4, 4], [2, 6]]
    )
    flips = torch.arange(9) % 2 == 0
    assert torch.equal(
        _gathered(pixels, corners, flips, 32), _sliced(pixels, corners, flips, 32)
    )


def test_an_empty_batch_stays_empty() -> None:
    x = augment(images(0), SMALL, seed=0, epoch=0, rows=np.empty(0, np.int64))
    assert x.shape == (0, 3, 32, 32)
