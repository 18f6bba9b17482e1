"""Poolings against the sums written out, and the sizes that the papers give."""

from __future__ import annotations

from math import prod

import pytest
import torch

from alexkit.errors import UsageError
from alexkit.features.pooling import GOYAL_KERNELS, MOST, Pooling
from alexkit.models.specs import SPECS

MAPS = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

EXPECTED = {
    None: MAPS,
    "none": MAPS,
    "flat": MAPS.reshape(2, 72),
    "avg": MAPS.sum(dim=(2, 3)) / 24,
    "max": MAPS.reshape(2, 3, 24).max(dim=2).values,
    "grid:2": torch.stack(
        [MAPS[:, :, y : y + 2, x : x + 3].mean((2, 3)) for y in (0, 2) for x in (0, 3)], 2
    ).reshape(2, 3, 2, 2),
    "9k": MAPS,
}


@pytest.mark.parametrize("text", EXPECTED)
def test_values_and_shapes(text: str | None) -> None:
    pooling = Pooling.parse(text)
    torch.testing.assert_close(pooling.apply(MAPS), EXPECTED[text])
    assert (2, *pooling.shape("conv1", (3, 4, 6))) == EXPECTED[text].shape
    assert Pooling.parse(str(pooling)) == pooling


@pytest.mark.parametrize("text", ["flat", "avg", "max", "grid:9", "9k"])
def test_a_layer_that_is_no_map_stays_as_it_is(text: str) -> None:
    for value in (torch.randn(2, 5), torch.randn(2, 7, 5)):
        pooled = Pooling.parse(text).apply(value)
        assert pooled.shape[1:] == Pooling.parse(text).shape("fc7", tuple(value.shape[1:]))
        assert torch.equal(pooled.flatten(), value.flatten())


def test_9k_has_the_sizes_of_goyal_2019() -> None:
    """9600, 9216, 9600, 9600, 9216 numbers for conv1 to conv5; there conv4 has 384 maps."""
    convolutions = [(96, 55, 55), (256, 27, 27), (384, 13, 13), (384, 13, 13), (256, 13, 13)]
    pooling = Pooling.parse("9k")
    sizes = [prod(pooling.shape("conv", shape)) for shape in convolutions]
    assert sizes == [9600, 9216, 9600, 9600, 9216]
    for shape, (kernel, stride) in GOYAL_KERNELS.items():
        maps = torch.randn(1, *shape, generator=torch.Generator().manual_seed(4))
        pooled = pooling.apply(maps)
        assert pooled.shape[1:] == pooling.shape("conv", shape)
        assert pooled.shape[-1] < shape[-1]
        second = maps[0, 0, :kernel, stride : stride + kernel].mean()
        torch.testing.assert_close(pooled[0, 0, 0, 1], second)


@pytest.mark.parametrize("model", SPECS)
def test_9k_leaves_about_9000_numbers_of_every_convolution(model: str) -> None:
    shapes = SPECS[model].empty().layer_shapes()
    for i in range(1, 6):
        count = prod(Pooling.parse("9k").shape("conv", shapes[f"conv{i}"]))
        assert 0.93 * 9216 < count <= MOST


@pytest.mark.parametrize("text", ["mean", "grid", "grid:", "grid:0", "grid:-1", "grid:2x2", ""])
def test_what_is_no_pooling(text: str) -> None:
    with pytest.raises(UsageError, match="not known"):
        Pooling.parse(text)


def test_a_grid_finer_than_the_map() -> None:
    with pytest.raises(UsageError, match="pool5 is 4 × 6, too small") as caught:
        Pooling.parse("grid:5").shape("pool5", (3, 4, 6))
    assert "grid:4" in caught.value.hint
