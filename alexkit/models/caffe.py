"""``bvlc-alexnet`` and ``caffenet``: Caffe's two networks, for weights trained there.

Both are the 2012 network on one device: grouped convolutions where the towers do not see
each other, but response normalisation across all maps, tower border included. 60,965,224
parameters at 1,000 classes. Source: ``train_val.prototxt`` of ``models/bvlc_alexnet`` and
``models/bvlc_reference_caffenet`` in BVLC/caffe.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from alexkit.models.blocks import (
    DROPOUT,
    FC_WIDTH,
    POOL5_SIDE,
    dropped,
    fill_gaussian,
    max_pool,
    response_norm,
)
from alexkit.models.layered import LayeredNet, Stages, Steps, rectified, tapped

LRN_COEFFICIENT = 1e-4 / 5
"""Caffe's α = 1e-4 is divided by n = 5 before it meets the sum (lrn_layer.cpp)."""

LRN_K = 1.0
"""Caffe's default (caffe.proto); the paper has 2."""


class BvlcAlexNet(LayeredNet):
    """Caffe's AlexNet: conv - ReLU - norm - pool in blocks 1 and 2.

    The input is 227, so that conv1 needs no padding and every pooling fits; Caffe rounds
    pooled sizes up, which matters for no pooling at that size. The ONNX graph of this
    network takes 224, rounds pool1 and pool2 down and pads pool5: hence the one pooling
    that rounds up here.
    """

    input_side = 227
    positive_bias = 0.1
    """Bias of conv2, conv4, conv5, fc6 and fc7 to begin with, where the paper has 1: that
    gave Caffe's authors a flat loss (readme of bvlc_alexnet)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6: nn.Linear | None = nn.Linear(256 * POOL5_SIDE**2, FC_WIDTH)
        self.fc7: nn.Linear | None = nn.Linear(FC_WIDTH, FC_WIDTH)
        self.fc8 = nn.Linear(FC_WIDTH, num_classes)

    def stages(self) -> Stages:
        fc6, fc7, fc8 = self.fc6, self.fc7, self.fc8
        stages: dict[str, Callable[[Tensor], Steps[Tensor]]] = {
            "conv1": lambda x: rectified("conv1", self.conv1(x)),
            **self.norm_and_pool("1"),
            "conv2": lambda x: rectified("conv2", self.conv2(x)),
            **self.norm_and_pool("2"),
            "conv3": lambda x: rectified("conv3", self.conv3(x)),
            "conv4": lambda x: rectified("conv4", self.conv4(x)),
            "conv5": lambda x: rectified("conv5", self.conv5(x)),
            "pool5": lambda x: tapped("pool5", max_pool(x, ceil=True)),
        }
        if fc6 is not None:
            stages["fc6"] = lambda x: rectified("fc6", fc6(self._rows(x.flatten(1))))
        if fc7 is not None:
            stages["fc7"] = lambda x: rectified("fc7", fc7(self._units(self._dropped(x))))
        if fc8 is not None:
            # What it reads is fc7, whose units are dropped, or maps as they are.
            stages["fc8"] = lambda x: tapped(
                "fc8",
                self.division.logits(fc8, x.flatten(1) if fc7 is None else self._dropped(x)),
            )
        return stages

    def _dropped(self, x: Tensor) -> Tensor:
        """Units of fc6 or fc7."""
        return dropped(x, DROPOUT, self.division, training=self.training, of_units=True)

    def norm_and_pool(self, block: str) -> dict[str, Callable[[Tensor], Steps[Tensor]]]:
        """The end of block 1 or 2: (N, C, H, W) to (N, C, H', W')."""
        norm, pool = f"norm{block}", f"pool{block}"
        return {
            norm: lambda x: tapped(norm, _norm(x)),
            pool: lambda x: tapped(pool, max_pool(x)),
        }

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """N(0, 0.01²), 0.005 in fc6 and fc7; see :attr:`positive_bias`."""
        fill_gaussian(
            tensors,
            generator,
            std=0.005 if layer in ("fc6", "fc7") else 0.01,
            bias=0.0 if layer in ("conv1", "conv3", "fc8") else self.positive_bias,
        )


class CaffeNet(BvlcAlexNet):
    """Caffe's reference network: conv - ReLU - pool - norm, and biases of 1."""

    positive_bias = 1.0

    def norm_and_pool(self, block: str) -> dict[str, Callable[[Tensor], Steps[Tensor]]]:
        """As in :class:`BvlcAlexNet`, pooled first."""
        return dict(reversed(super().norm_and_pool(block).items()))


def _norm(x: Tensor) -> Tensor:
    return response_norm(x, coefficient=LRN_COEFFICIENT, k=LRN_K)
