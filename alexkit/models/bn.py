"""``alexnet-bn``: the 2012 network with batch normalisation in place of what came before it.

After AlexNet_cvgj (Simon, Rodner, Denzler, arXiv 1612.01452; cvjena/cnn-models,
``AlexNet_cvgj/train.prototxt``: 60.1 % top-1): batch normalisation between every convolution
or fc6/fc7 and its ReLU, no response normalisation, He's initialisation. What differs from it
here, and why:

- scale and shift are learned, as batch norm is usually meant; the biases that would double
  the shift are left out;
- no normalisation of the image itself: the preprocessing does that;
- dropout of 0.2, the best of 0, 0.2 and 0.5 beside batch norm in ducha-aiki's
  caffenet-benchmark, where cvgj has none;
- 224 pixels with conv1 padded as in :mod:`alexkit.models.paper`, where cvgj crops 227.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.models.blocks import FC_WIDTH, POOL5_SIDE, NormedConv2d, NormedLinear, fill_msra
from alexkit.models.one_tower import OneTower
from alexkit.models.paper import CONV1_PAD


class BatchNormAlexNet(OneTower):
    """Widths and groups of the 2012 network on one device; 60,974,792 parameters at 1,000
    classes. ``convN:pre`` and ``fcN:pre`` are after batch norm, before the ReLU.

    With ``gap``, fc8 reads the mean of each map of pool5, layer ``gap``: there is no fc6 and
    no fc7, 2,592,456 parameters are left, and images may have any size.
    """

    dropout = 0.2

    def __init__(self, num_classes: int = 1000, *, gap: bool = False) -> None:
        super().__init__()
        self.conv1 = NormedConv2d(3, 96, 11, stride=4, groups=1)
        self.conv2 = NormedConv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = NormedConv2d(256, 384, 3, padding=1, groups=1)
        self.conv4 = NormedConv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = NormedConv2d(384, 256, 3, padding=1, groups=2)
        if gap:
            self.order = tuple({"fc6": "gap"}.get(name, name) for name in self.order)
        self.fc6 = None if gap else NormedLinear(256 * POOL5_SIDE**2, FC_WIDTH)
        self.fc7 = None if gap else NormedLinear(FC_WIDTH, FC_WIDTH)
        self.fc8 = nn.Linear(256 if gap else FC_WIDTH, num_classes)

    def read_by(self, name: str, x: Tensor) -> Tensor:
        return F.pad(x, CONV1_PAD) if name == "conv1" else super().read_by(name, x)

    def fixed(self, name: str, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3)) if name == "gap" else super().fixed(name, x)

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """N(0, 2 / inputs) everywhere, as cvgj's prototxt has it."""
        fill_msra(tensors, generator)
