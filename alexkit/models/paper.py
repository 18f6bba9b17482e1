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

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.models.blocks import (
    DROPOUT,
    FC_WIDTH,
    POOL5_SIDE,
    Conv2d,
    fill_gaussian,
    max_pool,
    response_norm,
)
from alexkit.models.division import Division, Halves
from alexkit.models.layered import LayeredNet, Stages, Steps, joined, rectified, tapped

CONV1_PAD = (0, 3, 0, 3)
"""Zeros left, right, top and bottom of the image, in pixels."""

LRN_COEFFICIENT = 1e-4
"""P §3.3's α, which multiplies the plain sum."""

LRN_K = 2.0
"""P §3.3."""

INIT_STD = 0.01
"""P §5, every layer."""

LAYERS = (
    *("conv1", "norm1", "pool1", "conv2", "norm2", "pool2"),
    *("conv3", "conv4", "conv5", "pool5"),
)
"""Up to the classifier, in order."""

ZERO_BIAS = ("conv1", "conv3", "fc8")
"""Layers whose biases begin at 0; at 1 in conv2, conv4, conv5, fc6 and fc7 (P §5)."""


@dataclass(frozen=True)
class Ablation:
    """What of P's network is left out, to see what it was worth.

    Attributes:
        lrn: response normalisation (P §3.3).
        overlap: pooling 3 x 3 at stride 2; without it 2 x 2 at stride 2, conv2 padded by 1
            and conv5 by 0, as in CHM's run 147, so that pool5 keeps its 6 x 6.
        towers: 2; with one, conv1 to conv4 have half the maps, and conv5, fc6 and fc7 all of
            theirs (CHM ``layers-145-half.cfg``; P §3.2's footnote).
        tanh: in place of every ReLU (P §3.1).
        dropout: of fc6 and fc7 (P §4.2).
        middle_std: of the initial weights of conv3 - conv5; P §5 has 0.01, CHM 0.03.
    """

    lrn: bool = True
    overlap: bool = True
    towers: int = 2
    tanh: bool = False
    dropout: bool = True
    middle_std: float = INIT_STD


PAPER = Ablation()


class Tower(nn.Module):
    """Half of every layer but fc8. conv3, fc6 and fc7 read both towers (P §3.5, fig. 2)."""

    def __init__(self, ablation: Ablation = PAPER) -> None:
        super().__init__()
        towers = ablation.towers
        pad2, pad5 = (2, 1) if ablation.overlap else (1, 0)
        self.conv1 = Conv2d(3, 48, 11, stride=4)
        self.conv2 = Conv2d(48, 128, 5, padding=pad2)
        self.conv3 = Conv2d(128 * towers, 192, 3, padding=1)
        self.conv4 = Conv2d(192, 192, 3, padding=1)
        self.conv5 = Conv2d(192, 256 // towers, 3, padding=pad5)
        self.fc6: nn.Linear | None = nn.Linear(256 * POOL5_SIDE**2, FC_WIDTH // towers)
        self.fc7: nn.Linear | None = nn.Linear(FC_WIDTH, FC_WIDTH // towers)


class TwoTowerAlexNet(LayeredNet):
    """The network of P: 60,965,224 parameters at 1,000 classes, 224 x 224 pixels.

    Each tower normalises across its own maps only. fc8 is on the first slot, as in CHM
    (``layers-145.cfg``). Towers meet by copying activations, never weights (P §3.2).

    Args:
        num_classes: K.
        ablation: what is left out of P's network.
    """

    def __init__(self, num_classes: int = 1000, *, ablation: Ablation = PAPER) -> None:
        super().__init__()
        self.ablation = ablation
        self.towers = nn.ModuleList([Tower(ablation) for _ in range(ablation.towers)])
        self.fc8 = nn.Linear(FC_WIDTH, num_classes)

    @property
    def slots(self) -> tuple[torch.device, ...]:
        return tuple(next(tower.parameters()).device for tower in self.towers)

    def place(self, devices: Sequence[torch.device]) -> None:
        """Moves the towers to the first and the last of ``devices``, which may be equal."""
        self.to(devices[0])
        self.towers[-1].to(devices[-1])

    def entered(self, x: Tensor) -> Halves:
        x = F.pad(x, CONV1_PAD)
        first, *others = self.slots
        return (x.to(first), *(self.division.brought(x, slot) for slot in others))

    def resumed(self, whole: Tensor) -> Halves:
        parts = whole.chunk(len(self.towers), dim=1)
        return tuple(part.to(slot) for part, slot in zip(parts, self.slots, strict=True))

    def stages(self) -> Stages:
        ablation = self.ablation
        activated = functools.partial(
            rectified, function=torch.tanh_ if ablation.tanh else torch.relu_
        )
        # 2 x 2 windows hang over the edge as CHM's do: 55, 28, 13, 6.
        pool = max_pool if ablation.overlap else functools.partial(max_pool, ceil=True, size=2)
        there = [name for name in LAYERS if ablation.lrn or not name.startswith("norm")]
        steps: dict[str, Callable[[str, Halves], Steps[Halves]]] = {
            "norm": lambda name, h: tapped(name, _both(_norm, h)),
            "pool": lambda name, h: tapped(name, _both(pool, h)),
            "conv": lambda name, h: activated(name, self._each(name, h)),
        }
        stages: dict[str, Callable[[Halves], Steps[Halves]]] = {
            name: functools.partial(steps[name[:4]], name) for name in there
        }
        stages["conv3"] = lambda h: steps["conv"]("conv3", self._exchanged(h))
        for name in ("fc6", "fc7"):
            if getattr(self.towers[0], name) is not None:
                stages[name] = functools.partial(self._joining, name, activated)
        fc8 = self.fc8
        if fc8 is not None:
            stages["fc8"] = lambda h: tapped(
                "fc8", (self.division.logits(fc8, self._on_first(self._read_by("fc8", h))),)
            )
        return stages

    def _joining(
        self, name: str, activated: Callable[[str, Halves], Steps[Halves]], h: Halves
    ) -> Steps[Halves]:
        """fc6 or fc7, which read both towers."""
        return activated(name, self._each(name, self._exchanged(self._read_by(name, h))))

    def _read_by(self, name: str, h: Halves) -> Halves:
        """What a layer of the classifier reads: rows, units of fc6 and fc7 dropped."""
        h = _both(torch.flatten, h, 1)
        maps = name == "fc6" or self.towers[0].fc6 is None
        if not maps and self.ablation.dropout:
            h = dropped(h, self.division, training=self.training)
        if name == "fc6":
            return self.division.rows(h)
        return self.division.units(h) if name == "fc7" else h

    def _exchanged(self, halves: Halves) -> Halves:
        """Both halves joined, once on each half's device."""
        if len(halves) == 1:
            return halves
        first, second = halves
        bring = self.division.brought
        return (
            torch.cat([first, bring(second, first.device)], dim=1),
            torch.cat([bring(first, second.device), second], dim=1),
        )

    def _on_first(self, halves: Halves) -> Tensor:
        """Both halves joined on the first one's device."""
        first, *others = halves
        return joined((first, *(self.division.brought(h, first.device) for h in others)))

    def _each(self, layer: str, inputs: Halves) -> Halves:
        modules = [getattr(tower, layer) for tower in self.towers]
        return tuple(module(part) for module, part in zip(modules, inputs, strict=True))

    def canonical_name(self, name: str) -> str:
        return name.split(".", 2)[2] if name.startswith("towers.") else name

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """P §5; see :data:`ZERO_BIAS`."""
        bias = 0.0 if layer in ZERO_BIAS else 1.0
        middle = layer in ("conv3", "conv4", "conv5")
        std = self.ablation.middle_std if middle else INIT_STD
        fill_gaussian(tensors, generator, std=std, bias=bias)


def dropped(halves: Halves, division: Division, *, training: bool) -> Halves:
    """Dropout of P §4.2: a mask in training, every unit halved otherwise.

    The mask of the whole layer is drawn at once, from the generator of the first half's
    device: equal seeds drop equal units however the layer is divided.
    """
    if not training:
        return tuple(half * (1 - DROPOUT) for half in halves)
    masks = division.noise(halves, lambda keep: keep.bernoulli_(1 - DROPOUT), of_units=True)
    return tuple(half * mask for half, mask in zip(halves, masks, strict=True))


def _both(function: Callable[..., Tensor], halves: Halves, *args: int) -> Halves:
    return tuple(function(half, *args) for half in halves)


def _norm(x: Tensor) -> Tensor:
    return response_norm(x, coefficient=LRN_COEFFICIENT, k=LRN_K)
