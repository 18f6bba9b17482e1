"""Convolutional maps made smaller before they are stored."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt, prod

import torch.nn.functional as F
from torch import Tensor

from alexkit.errors import UsageError

Shape = tuple[int, ...]

GOYAL_KERNELS = {
    (96, 55, 55): (19, 4),
    (256, 27, 27): (12, 3),
    (384, 13, 13): (9, 1),
    (256, 13, 13): (8, 1),
}
"""Shape of a map -> kernel and stride of the average that leaves 9,216 or 9,600 numbers:
conv1 to conv5 of AlexNet in Goyal, Mahajan, Gupta, Misra: Scaling and Benchmarking
Self-Supervised Visual Representation Learning, arXiv 1905.01235 (VISSL's configurations)."""

MOST = 9600
"""The most numbers a layer has there. Zhang, Isola, Efros (arXiv 1603.08511) ask for about
9,000 a layer; the largest grid within this is, for those five maps, also Goyal's."""

WORDS = ("flat", "avg", "max", "grid:K", "9k")


@dataclass(frozen=True)
class Pooling:
    """What becomes of a (B, C, H, W) layer; a layer of other dimensions stays as it is.

    Attributes:
        how: ``"none"`` (whole maps), ``"flat"``, ``"avg"`` and ``"max"`` (one number a map),
            ``"grid"`` (averages over K × K even parts) or ``"9k"`` (see
            :data:`GOYAL_KERNELS`; maps of other shapes get the largest even grid of at most
            :data:`MOST` numbers).
        side: K of a grid, else 0.
    """

    how: str = "none"
    side: int = 0

    @classmethod
    def parse(cls, text: str | None) -> Pooling:
        """What ``--pool`` takes; None is whole maps.

        Raises:
            UsageError: it is none of :data:`WORDS`.
        """
        if text is None or text in ("none", "flat", "avg", "max", "9k"):
            return cls(text or "none")
        head, _, tail = text.partition(":")
        if head == "grid" and tail.isdecimal() and int(tail) > 0:
            return cls("grid", int(tail))
        raise UsageError(
            f"--pool {text} is not known", hint=f"use {', '.join(WORDS)}, e.g. grid:3"
        )

    def __str__(self) -> str:
        return f"grid:{self.side}" if self.how == "grid" else self.how

    def shape(self, layer: str, shape: Shape) -> Shape:
        """The shape of one row of ``layer`` when its values have ``shape``.

        Raises:
            UsageError: the grid is finer than the map.
        """
        if self.how == "flat":
            return (prod(shape),)
        if self.how == "none" or len(shape) != 3:
            return shape
        channels, height, width = shape
        if self.how in ("avg", "max"):
            return (channels,)
        if self.how == "grid" and self.side > min(height, width):
            raise UsageError(
                f"{layer} is {height} × {width}, too small for --pool grid:{self.side}",
                hint=f"use grid:{min(height, width)} or less, or leave {layer} out",
            )
        if self.how == "9k" and shape in GOYAL_KERNELS:
            kernel, stride = GOYAL_KERNELS[shape]
            side = (height - kernel) // stride + 1
            return (channels, side, side)
        return (channels, *self._grid(shape))

    def apply(self, value: Tensor) -> Tensor:
        """(B, …) values of a layer -> (B, …) in the shape that :meth:`shape` tells."""
        if self.how == "flat":
            return value.flatten(1)
        if self.how == "none" or value.ndim != 4:
            return value
        if self.how == "avg":
            return value.mean(dim=(2, 3))
        if self.how == "max":
            return value.amax(dim=(2, 3))
        shape = tuple(value.shape[1:])
        if self.how == "9k" and shape in GOYAL_KERNELS:
            return F.avg_pool2d(value, *GOYAL_KERNELS[shape])
        return F.adaptive_avg_pool2d(value, self._grid(shape))

    def _grid(self, shape: Shape) -> tuple[int, int]:
        channels, height, width = shape
        side = self.side or max(1, isqrt(MOST // channels))
        return min(side, height), min(side, width)
