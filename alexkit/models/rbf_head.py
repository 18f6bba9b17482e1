"""Radial basis functions upon the maps of pool5, in place of a linear ``fc8``."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVEL = math.exp(-1)
"""What is taken off every unit, its value at a distance of 1/sqrt(gamma): hundreds of positive
terms that all but cancel would leave float32 ten times as much rounding (1e-5 of a
probability, 480 images in 5 classes)."""


class RBFHead(nn.Linear):
    """A linear layer on hidden units that say how near an image is to others.

    A radial basis function network (Broomhead and Lowe 1988, Complex Systems 2): a unit is
    exp(-gamma ‖u - c‖²) - 1/e, where u describes the image, see :func:`described`, and the
    centre c an image that was learnt from.

    Args:
        units: M, how many centres there are.
        inputs: d, numbers of an image's maps.
        maps: how many maps these are, one after the other.
        classes: K.

    Attributes:
        centres: (M, d + maps) float32.
        gamma: (1) float32.
    """

    centres: Tensor
    gamma: Tensor

    def __init__(self, units: int, inputs: int, maps: int, classes: int) -> None:
        super().__init__(units, classes)
        self.maps = maps
        self.register_buffer("centres", torch.zeros(units, inputs + maps))
        self.register_buffer("gamma", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K), of (N, d)."""
        u = described(x, self.maps)
        squares = u.square().sum(1, keepdim=True) + self.centres.square().sum(1)
        apart = (squares - 2 * u @ self.centres.T).clamp(min=0)
        # Of -gamma the ONNX exporter would make a tensor without a name, and none could read
        # the file back.
        return super().forward(torch.exp(-(self.gamma * apart)) - LEVEL)


def described(x: Tensor, maps: int) -> Tensor:
    """(N, d + maps) of (N, d): the maps, and the root mean square of each, both scaled to one
    length and together to length 1.

    What is where, and what is in an image wherever it is; of one length, as what an image is
    of does not depend on how strongly the network answers to it. The root mean square stands
    between a map's mean and its maximum (generalised mean pooling, Radenović et al. 2018,
    arXiv:1711.02512, with p = 2).
    """
    of_maps = torch.unflatten(x, 1, (maps, -1)).square().mean(dim=2).sqrt()
    return torch.cat([F.normalize(x), F.normalize(of_maps)], dim=1) / math.sqrt(2)
