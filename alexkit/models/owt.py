"""``alexnet-owt``: torchvision's AlexNet, one tower without response normalisation.

From "One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997) by
way of torchvision's ``alexnet.py``, whose conv4 has 256 maps where the article words 384.
61,100,840 parameters at 1,000 classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alexkit.models.blocks import FC_WIDTH, POOL5_SIDE, Conv2d, fill_torch, in_one_row
from alexkit.models.one_tower import OneTower


class OneTowerAlexNet(OneTower):
    """Equal to ``torchvision.models.alexnet``, dropout before fc6 and fc7 included.

    Images of another size than 224 are served too: pool5 is then averaged to 6 x 6 before
    fc6, as torchvision does.
    """

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = Conv2d(3, 64, 11, stride=4, padding=2)
        self.conv2 = Conv2d(64, 192, 5, padding=2)
        self.conv3 = Conv2d(192, 384, 3, padding=1)
        self.conv4 = Conv2d(384, 256, 3, padding=1)
        self.conv5 = Conv2d(256, 256, 3, padding=1)
        self.fc6 = nn.Linear(256 * POOL5_SIDE**2, FC_WIDTH)
        self.fc7 = nn.Linear(FC_WIDTH, FC_WIDTH)
        self.fc8 = nn.Linear(FC_WIDTH, num_classes)

    def read_by(self, name: str, x: Tensor) -> Tensor:
        if name == "fc6":
            x = self.with_dropout(in_one_row(x), of_units=False)
        return in_one_row(x) if name == "fc8" else super().read_by(name, x)

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """torch's defaults: torchvision's ``alexnet.py`` sets nothing of its own."""
        fill_torch(tensors, generator)
