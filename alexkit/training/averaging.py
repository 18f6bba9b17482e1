"""The weights averaged over the last steps, by torch's own averaged model."""

from __future__ import annotations

from typing import cast

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from alexkit.models.layered import LayeredNet

SPAN = 0.039
"""The mean age of what is averaged, as a share of the run. pytorch/vision's references
(``classification/train.py``) set the decay so that it spans 50,000 images for each epoch of
the run (``--model-ema-decay 0.99998``), and that is 3.9 % of ImageNet's 1,281,167."""


class Average:
    """An exponential moving average of every tensor of a network, running statistics too.

    Args:
        net: copied; on its devices already.
        steps: of the whole run.
    """

    def __init__(self, net: LayeredNet, steps: int) -> None:
        decay = 1 - min(1.0, 1 / (SPAN * steps))
        blend = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._model = AveragedModel(net, multi_avg_fn=blend, use_buffers=True)

    @property
    def net(self) -> LayeredNet:
        """The network with the averaged tensors."""
        return cast(LayeredNet, self._model.module)

    @property
    def count(self) -> int:
        """Steps taken in; the first one is copied."""
        return int(self._model.n_averaged)

    def update(self, net: nn.Module) -> None:
        """Takes in the tensors of ``net`` after a step."""
        self._model.update_parameters(net)

    def restore(self, count: int) -> None:
        """Continues after ``count`` steps; :attr:`net` has been given its tensors."""
        self._model.n_averaged.fill_(count)
