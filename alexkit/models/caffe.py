"""``bvlc-alexnet`` and ``caffenet``: Caffe's two networks, for weights trained there.

Both are the 2012 network on one device: grouped convolutions where the towers do not see
each other, but response normalisation across all maps, tower border included. 60,965,224
parameters at 1,000 classes. Source: ``train_val.prototxt`` of ``models/bvlc_alexnet`` and
``models/bvlc_reference_caffenet`` in BVLC/caffe.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alexkit.models.blocks import (
    FC_WIDTH,
    POOL5_SIDE,
    Conv2d,
    fill_gaussian,
    max_pool,
    response_norm,
)
from alexkit.models.one_tower import OneTower

LRN_COEFFICIENT = 1e-4 / 5
"""Caffe's α = 1e-4 is divided by n = 5 before it meets the sum (lrn_layer.cpp)."""

LRN_K = 1.0
"""Caffe's default (caffe.proto); the paper has 2."""


class BvlcAlexNet(OneTower):
    """Caffe's AlexNet: conv - ReLU - norm - pool in blocks 1 and 2.

    The input is 227, so that conv1 needs no padding and every pooling fits; Caffe rounds
    pooled sizes up, which matters for no pooling at that size. The ONNX graph of this
    network takes 224, rounds pool1 and pool2 down and pads pool5: hence the one pooling
    that rounds up here.
    """

    input_side = 227
    order = ("conv1", "norm1", "pool1", "conv2", "norm2", "pool2", *OneTower.order[4:])
    positive_bias = 0.1
    """Bias of conv2, conv4, conv5, fc6 and fc7 to begin with, where the paper has 1: that
    gave Caffe's authors a flat loss (readme of bvlc_alexnet)."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 96, 11, stride=4)
        self.conv2 = Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = Conv2d(256, 384, 3, padding=1)
        self.conv4 = Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * POOL5_SIDE**2, FC_WIDTH)
        self.fc7 = nn.Linear(FC_WIDTH, FC_WIDTH)
        self.fc8 = nn.Linear(FC_WIDTH, num_classes)

    def fixed(self, name: str, x: Tensor) -> Tensor:
        if name.startswith("norm"):
            return response_norm(x, coefficient=LRN_COEFFICIENT, k=LRN_K)
        return max_pool(x, ceil=name == "pool5")

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

    order = ("conv1", "pool1", "norm1", "conv2", "pool2", "norm2", *OneTower.order[4:])
    positive_bias = 1.0
