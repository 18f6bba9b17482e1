"""``alexnet``: the 2012 network in two towers, one device each or both on one.

P = Krizhevsky, Sutskever, Hinton, NIPS 2012; CHM = computerhistory/AlexNet-Source-Code, the
code that was run (its ``layers/layers-145.cfg`` logged the paper's figures). Where the two
disagree, the paper's text was taken:

| what | P, taken here | CHM, not taken |
|---|---|---|
| blocks 1 and 2 | conv - ReLU - norm - pool (§3.3, §3.5) | block 1 normalises before its ReLU |
| normalisation | k = 2, α = 1e-4 times the plain sum (§3.3) | α divided by n = 5 |
| a second norm in block 2 | none | over 5 x 5 pixels of each map |
| weights of conv3 - conv5 | N(0, 0.01²) (§5) | N(0, 0.03²) |

One thing P leaves open is taken from CHM: how 224 pixels give 55 outputs at conv1. Windows
start at the left and top edge, and where the last ones hang over the right and bottom edge
they read zeros, 3 pixels' worth (CHM ``layer.py``: padding 0, output width rounded up).

Dropout is as P §4.2 has it: units are masked in training, and halved otherwise. The more
common way to scale by 2 in training gives fc7 and fc8 four times the learning rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.models.blocks import (
    DROPOUT,
    FC_WIDTH,
    POOL5_SIDE,
    fill_gaussian,
    max_pool,
    response_norm,
)
from alexkit.models.layered import Halves, LayeredNet, Walk, joined, rectified, tapped

CONV1_PAD = (0, 3, 0, 3)
"""Zeros left, right, top and bottom of the image, in pixels."""

LRN_COEFFICIENT = 1e-4
"""P §3.3's α, which multiplies the plain sum."""

LRN_K = 2.0
"""P §3.3."""

INIT_STD = 0.01
"""P §5, every layer."""

ZERO_BIAS = ("conv1", "conv3", "fc8")
"""Layers whose biases begin at 0; at 1 in conv2, conv4, conv5, fc6 and fc7 (P §5)."""


class Tower(nn.Module):
    """Half of every layer but fc8. conv3, fc6 and fc7 read both towers (P §3.5, fig. 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 48, 11, stride=4)
        self.conv2 = nn.Conv2d(48, 128, 5, padding=2)
        self.conv3 = nn.Conv2d(256, 192, 3, padding=1)
        self.conv4 = nn.Conv2d(192, 192, 3, padding=1)
        self.conv5 = nn.Conv2d(192, 128, 3, padding=1)
        self.fc6: nn.Linear | None = nn.Linear(256 * POOL5_SIDE**2, FC_WIDTH // 2)
        self.fc7: nn.Linear | None = nn.Linear(FC_WIDTH, FC_WIDTH // 2)


class TwoTowerAlexNet(LayeredNet):
    """The network of P: 60,965,224 parameters at 1,000 classes, 224 x 224 pixels.

    Each tower normalises across its own maps only. fc8 is on the first slot, as in CHM
    (``layers-145.cfg``). Towers meet by copying activations, never weights (P §3.2).

    Args:
        num_classes: K.
        devices: the slot of each tower; they may be one and the same.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        devices: Sequence[torch.device | str] | None = None,
    ) -> None:
        super().__init__()
        self.towers = nn.ModuleList([Tower(), Tower()])
        self.fc8 = nn.Linear(FC_WIDTH, num_classes)
        if devices is not None:
            self.place([torch.device(device) for device in devices])

    @property
    def slots(self) -> tuple[torch.device, ...]:
        return tuple(next(tower.parameters()).device for tower in self.towers)

    def place(self, devices: Sequence[torch.device]) -> None:
        """Moves the towers to the first and the last of ``devices``."""
        self.to(devices[0])
        self.towers[1].to(devices[-1])

    def walk(self, x: Tensor) -> Walk:
        first, second = self.slots
        x = F.pad(x, CONV1_PAD)
        h = self._each("conv1", (x.to(first), x.to(second)))
        h = yield from rectified("conv1", h)
        h = yield from tapped("norm1", _both(_norm, h))
        h = yield from tapped("pool1", _both(max_pool, h))
        h = yield from rectified("conv2", self._each("conv2", h))
        h = yield from tapped("norm2", _both(_norm, h))
        h = yield from tapped("pool2", _both(max_pool, h))
        h = yield from rectified("conv3", self._each("conv3", _exchanged(h)))
        h = yield from rectified("conv4", self._each("conv4", h))
        h = yield from rectified("conv5", self._each("conv5", h))
        h = yield from tapped("pool5", _both(max_pool, h))
        h = _both(torch.flatten, h, 1)
        if self.towers[0].fc6 is not None:
            h = yield from rectified("fc6", self._each("fc6", _exchanged(h)))
            h = dropped(h, training=self.training)
        if self.towers[0].fc7 is not None:
            h = yield from rectified("fc7", self._each("fc7", _exchanged(h)))
            h = dropped(h, training=self.training)
        if self.fc8 is not None:
            yield "fc8", self.fc8(joined(h))

    def _each(self, layer: str, inputs: Halves) -> Halves:
        first, second = (getattr(tower, layer) for tower in self.towers)
        return first(inputs[0]), second(inputs[1])

    def canonical_name(self, name: str) -> str:
        return name.split(".", 2)[2] if name.startswith("towers.") else name

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """P §5; see :data:`ZERO_BIAS`."""
        bias = 0.0 if layer in ZERO_BIAS else 1.0
        fill_gaussian(tensors, generator, std=INIT_STD, bias=bias)


def dropped(halves: Halves, *, training: bool) -> Halves:
    """Dropout of P §4.2: a mask in training, every unit halved otherwise.

    The mask of the whole layer is drawn at once, from the generator of the first half's
    device: equal seeds drop equal units however the layer is divided.
    """
    first, second = halves
    if not training:
        return first * (1 - DROPOUT), second * (1 - DROPOUT)
    width = first.shape[1]
    keep = torch.empty(first.shape[0], width + second.shape[1], device=first.device)
    keep.bernoulli_(1 - DROPOUT)
    return first * keep[:, :width], second * keep[:, width:].to(second.device)


def _exchanged(halves: Halves) -> Halves:
    """Both halves joined, once on each half's device."""
    first, second = halves
    return (
        torch.cat([first, second.to(first.device)], dim=1),
        torch.cat([first.to(second.device), second], dim=1),
    )


def _both(function: Callable[..., Tensor], halves: Halves, *args: int) -> Halves:
    return function(halves[0], *args), function(halves[1], *args)


def _norm(x: Tensor) -> Tensor:
    return response_norm(x, coefficient=LRN_COEFFICIENT, k=LRN_K)
