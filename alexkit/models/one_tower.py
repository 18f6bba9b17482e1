"""What the networks of one tower share: layers one after the other, on one device."""

from __future__ import annotations

import functools

from torch import Tensor, nn

from alexkit.models.blocks import DROPOUT, dropped, in_one_row, max_pool
from alexkit.models.layered import CLASSIFIER, LayeredNet, Stages, Steps, rectified, tapped


class OneTower(LayeredNet):
    """A network whose layers are its modules ``conv1 … conv5`` and ``fc6 … fc8``, with what has
    no weights between them.

    Attributes:
        order: the layers, those of the classifier included.
        dropout: the chance that a unit of fc6 or fc7 is dropped.
    """

    order: tuple[str, ...] = (
        *("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5"),
        *CLASSIFIER,
    )
    dropout = DROPOUT
    fc6: nn.Linear | None
    fc7: nn.Linear | None

    def stages(self) -> Stages:
        there = [name for name in self.order if getattr(self, name, self) is not None]
        return {name: functools.partial(self.stage, name) for name in there}

    def stage(self, name: str, x: Tensor) -> Steps[Tensor]:
        """One layer, of the value before it."""
        if name not in self._modules:
            return tapped(name, self.fixed(name, x))
        x = self.read_by(name, x)
        if name == "fc8":
            assert self.fc8 is not None
            return tapped(name, self.division.logits(self.fc8, x))
        return rectified(name, getattr(self, name)(x))

    def fixed(self, name: str, x: Tensor) -> Tensor:
        """A layer without weights, of (N, C, H, W): a pooling."""
        return max_pool(x)

    def read_by(self, name: str, x: Tensor) -> Tensor:
        """What a layer with weights reads, of the value before it."""
        if name == "fc6":
            return self.division.rows((in_one_row(x),))[0]
        if name == "fc7":
            return self.division.units((self.with_dropout(x),))[0]
        if name == "fc8":  # fc7, whose units are dropped, or maps as they are
            return in_one_row(x) if self.fc7 is None else self.with_dropout(x)
        return x

    def with_dropout(self, x: Tensor, *, of_units: bool = True) -> Tensor:
        """(B, D), units of fc6 or fc7 unless it is told otherwise."""
        return dropped(
            x, self.dropout, self.division, training=self.training, of_units=of_units
        )
