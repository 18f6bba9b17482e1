"""A network small enough to train in milliseconds, with what makes restarts hard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

MakeNet = Callable[..., nn.Module]
MakeBatches = Callable[..., list[tuple[Tensor, Tensor]]]


@pytest.fixture
def make_net() -> MakeNet:
    """A convolution, batch norm, dropout and a classifier of 4 classes, from a seed."""

    def make(seed: int = 0, *, norm: bool = True) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2),
            nn.BatchNorm2d(8) if norm else nn.Identity(),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8 * 3 * 3, 16),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(16, 4),
        )

    return make


@pytest.fixture
def make_batches() -> MakeBatches:
    """Batches of 8 images 8 x 8 whose class is a colour cast, a function of their number."""

    def make(first: int, end: int, *, size: int = 8) -> list[tuple[Tensor, Tensor]]:
        batches = []
        for number in range(first, end):
            generator = torch.Generator().manual_seed(number)
            y = torch.randint(4, (size,), generator=generator)
            x = torch.randn(size, 3, 8, 8, generator=generator)
            x[:, :2] += 2 * torch.stack((y % 2, y // 2), dim=1)[:, :, None, None]
            batches.append((x, y))
        return batches

    return make
