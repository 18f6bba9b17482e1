"""``alexnet-owt``: torchvision's AlexNet, one tower without response normalisation.

From "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997) by
way of torchvision's ``alexnet.py``, whose conv4 has 256 maps where the article words 384.
61,100,840 parameters at 1,000 classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from alexkit.models.blocks import (
    DROPOUT,
    FC_WIDTH,
    POOL5_SIDE,
    conv_in_blocks,
    dropped,
    fill_torch,
    in_one_row,
    max_pool,
)
from alexkit.models.layered import LayeredNet, Stages, Steps, rectified, tapped


class OneTowerAlexNet(LayeredNet):
    """Equal to ``torchvision.models.alexnet``, dropout before fc6 and fc7 included.

    Images of another size than 224 are served too: pool5 is then averaged to 6 x 6 before
    fc6, as torchvision does.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 11, stride=4, padding=2)
        self.conv2 = nn.Conv2d(64, 192, 5, padding=2)
        self.conv3 = nn.Conv2d(192, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 256, 3, padding=1)
        self.conv5 = nn.Conv2d(256, 256, 3, padding=1)
        self.fc6: nn.Linear | None = nn.Linear(256 * POOL5_SIDE**2, FC_WIDTH)
        self.fc7: nn.Linear | None = nn.Linear(FC_WIDTH, FC_WIDTH)
        self.fc8 = nn.Linear(FC_WIDTH, num_classes)

    def stages(self) -> Stages:
        fc6, fc7, fc8 = self.fc6, self.fc7, self.fc8

        def read(x: Tensor) -> Tensor:
            return self._rows(self._dropped(in_one_row(x), of_units=False))

        stages: dict[str, Callable[[Tensor], Steps[Tensor]]] = {
            "conv1": lambda x: rectified("conv1", self.conv1(x)),
            "pool1": lambda x: tapped("pool1", max_pool(x)),
            "conv2": lambda x: rectified("conv2", conv_in_blocks(self.conv2, x)),
            "pool2": lambda x: tapped("pool2", max_pool(x)),
            "conv3": lambda x: rectified("conv3", self.conv3(x)),
            "conv4": lambda x: rectified("conv4", self.conv4(x)),
            "conv5": lambda x: rectified("conv5", self.conv5(x)),
            "pool5": lambda x: tapped("pool5", max_pool(x)),
        }
        if fc6 is not None:
            stages["fc6"] = lambda x: rectified("fc6", fc6(read(x)))
        if fc7 is not None:
            stages["fc7"] = lambda x: rectified("fc7", fc7(self._units(self._dropped(x))))
        if fc8 is not None:
            stages["fc8"] = lambda x: tapped("fc8", self.division.logits(fc8, in_one_row(x)))
        return stages

    def _dropped(self, x: Tensor, *, of_units: bool = True) -> Tensor:
        return dropped(x, DROPOUT, self.division, training=self.training, of_units=of_units)

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """torch's defaults: torchvision's ``alexnet.py`` sets nothing of its own."""
        fill_torch(tensors, generator)
