"""``alexnet-bn``: the 2012 network with batch normalisation in place of what came before it.

After AlexNet_cvgj (cvjena/cnn-models, ``AlexNet_cvgj/train.prototxt``: 60.1 % top-1): batch
normalisation between every convolution or fc6/fc7 and its ReLU, no response normalisation,
He's initialisation. What differs from it here, and why:

- scale and shift are learned, as batch norm is usually meant; the biases that would double
  the shift are left out;
- no normalisation of the image itself: the preprocessing does that;
- dropout of 0.2, the best of 0, 0.2 and 0.5 beside batch norm in ducha-aiki's
  caffenet-benchmark, where cvgj has none;
- 224 pixels with conv1 padded as in :mod:`alexkit.models.paper`, where cvgj crops 227.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.models.blocks import (
    FC_WIDTH,
    POOL5_SIDE,
    NormedConv2d,
    NormedLinear,
    dropped,
    fill_msra,
    in_one_row,
    max_pool,
)
from alexkit.models.layered import LayeredNet, Stages, Steps, rectified, tapped
from alexkit.models.paper import CONV1_PAD

LOW_DROPOUT = 0.2


class BatchNormAlexNet(LayeredNet):
    """Widths and groups of the 2012 network on one device; 60,974,792 parameters at 1,000
    classes. ``convN:pre`` and ``fcN:pre`` are after batch norm, before the ReLU.

    With ``gap``, fc8 reads the mean of each map of pool5, layer ``gap``: there is no fc6 and
    no fc7, 2,592,456 parameters are left, and images may have any size.
    """

    def __init__(self, num_classes: int = 1000, *, gap: bool = False) -> None:
        super().__init__()
        self.conv1 = NormedConv2d(3, 96, 11, stride=4, groups=1)
        self.conv2 = NormedConv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = NormedConv2d(256, 384, 3, padding=1, groups=1)
        self.conv4 = NormedConv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = NormedConv2d(384, 256, 3, padding=1, groups=2)
        self.gap = gap
        self.fc6: NormedLinear | None = None
        self.fc7: NormedLinear | None = None
        if not gap:
            self.fc6 = NormedLinear(256 * POOL5_SIDE**2, FC_WIDTH)
            self.fc7 = NormedLinear(FC_WIDTH, FC_WIDTH)
        self.fc8 = nn.Linear(256 if gap else FC_WIDTH, num_classes)

    def stages(self) -> Stages:
        fc6, fc7, fc8 = self.fc6, self.fc7, self.fc8
        stages: dict[str, Callable[[Tensor], Steps[Tensor]]] = {
            "conv1": lambda x: rectified("conv1", self.conv1(F.pad(x, CONV1_PAD))),
            "pool1": lambda x: tapped("pool1", max_pool(x)),
            "conv2": lambda x: rectified("conv2", self.conv2(x)),
            "pool2": lambda x: tapped("pool2", max_pool(x)),
            "conv3": lambda x: rectified("conv3", self.conv3(x)),
            "conv4": lambda x: rectified("conv4", self.conv4(x)),
            "conv5": lambda x: rectified("conv5", self.conv5(x)),
            "pool5": lambda x: tapped("pool5", max_pool(x)),
        }
        if self.gap:
            stages["gap"] = lambda x: tapped("gap", x.mean(dim=(2, 3)))
        if fc6 is not None:
            stages["fc6"] = lambda x: rectified("fc6", fc6(self._rows(in_one_row(x))))
        if fc7 is not None:
            stages["fc7"] = lambda x: rectified("fc7", fc7(self._units(self._dropped(x))))
        if fc8 is not None:
            # What it reads is fc7, whose units are dropped, or maps as they are.
            read = self._dropped if fc7 is not None else in_one_row
            stages["fc8"] = lambda x: tapped("fc8", self.division.logits(fc8, read(x)))
        return stages

    def _dropped(self, x: Tensor) -> Tensor:
        """Units of fc6 or fc7."""
        return dropped(x, LOW_DROPOUT, self.division, training=self.training, of_units=True)

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """N(0, 2 / inputs) everywhere, as cvgj's prototxt has it."""
        fill_msra(tensors, generator)
