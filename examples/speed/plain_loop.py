"""A training loop as one writes it by hand, for a process of its own."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models import alexnet

KEPT: dict[str, Any] = {}
"""What the process has from its beginning to its last turn."""


def begin(device: str, x: Tensor, y: Tensor) -> None:
    """For images (N, 3, H, W) and their classes (N)."""
    net = alexnet(weights=None).to(device).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    KEPT.update(net=net, optimizer=optimizer, x=x.to(device), y=y.to(device))


def turn(steps: int) -> list[tuple[int, float, float]]:
    """Images of each step, its seconds, and those of them spent waiting for images: none."""
    net, optimizer, x, y = KEPT["net"], KEPT["optimizer"], KEPT["x"], KEPT["y"]
    taken = []
    for _ in range(steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        loss.item()
        taken.append((len(x), time.perf_counter() - began, 0.0))
    return taken
