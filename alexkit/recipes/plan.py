"""Everything a fit needs, settled before its run folder is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from alexkit.images.preprocess import Preprocess
from alexkit.images.resident import ResidentPixels
from alexkit.images.source import ImageSource
from alexkit.models.heads import Tail
from alexkit.models.layered import LayeredNet
from alexkit.models.torchvision_nets import TorchvisionBackbone, TorchvisionNet
from alexkit.models.zoo import Backbone
from alexkit.recipes.feed import MakeFeed, Pixels
from alexkit.recipes.inputs import Holdout
from alexkit.training.placement import Placement
from alexkit.training.schedule import Schedule


@dataclass(frozen=True)
class Plan:
    """Everything a fit needs, settled before its run folder is made.

    Attributes:
        backbone: the network, on its devices, with the head it is to have.
        source: the images.
        holdout: which of its rows to learn from, and which to judge by.
        optimizer, schedule: of this network.
        epochs, batch_size, threads, seed: as the options, defaults filled in.
        color: the share of the run, from its start, with the paper's colour noise; 0 is none.
        strict: the first bad image is an error.
        smoothing: of the labels.
        average: judge and write the average of the weights over the last steps.
        sides: shares of the run and the pixels images are trained at from there on; none is
            the network's own size throughout.
        rescale: what to do with the gradients before each step.
        watch: looks at each finished row of the metrics; a sentence, or None.
        max_seconds: after which to save and stop.
        class_weights: (K) float32, what each class's loss is multiplied by; None is 1.
        patience: epochs without a better held-out top-1 after which it ends; 0 is never.
        keep_last: the last epoch's weights count, not those of the best held-out top-1.
        tail: the part that learns, where the layers before it stay as they are; None is the
            whole network.
        feed: what images become before they reach what learns.
        ten_view: judge by the paper's ten views too, once, at the end.
        autocast: number type of the network's products; None is float32. Response
            normalisation, softmax and loss are float32 in any case.
        placement: which part of each step is done here.
        resident: the pixels of the source in the memory of the device, where they fit.
    """

    backbone: Backbone | TorchvisionBackbone
    source: ImageSource
    holdout: Holdout
    optimizer: torch.optim.SGD
    schedule: Schedule
    epochs: int
    batch_size: int
    threads: int
    seed: int
    color: float
    strict: bool
    smoothing: float = 0.0
    average: bool = False
    sides: tuple[tuple[float, int], ...] = ()
    rescale: Callable[[], None] | None = None
    watch: Callable[[dict[str, float]], str | None] = lambda row: None
    max_seconds: float | None = None
    class_weights: Tensor | None = None
    patience: int = 0
    keep_last: bool = False
    tail: Tail | None = None
    feed: MakeFeed = Pixels
    ten_view: bool = False
    autocast: torch.dtype | None = None
    placement: Placement = field(default_factory=Placement)
    resident: ResidentPixels | None = None

    @property
    def net(self) -> LayeredNet | TorchvisionNet | Tail:
        """What is trained and judged."""
        return self.tail or self.backbone.net

    def loss(self) -> nn.CrossEntropyLoss:
        """What is minimised."""
        return nn.CrossEntropyLoss(self.class_weights, label_smoothing=self.smoothing)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass, the last one maybe smaller."""
        return math.ceil(len(self.holdout.train) / self.batch_size)

    def preprocess_at(self, epoch: int) -> Preprocess:
        """How training images are made in ``epoch``: smaller where the run begins smaller."""
        own = self.backbone.preprocess
        side = own.crop
        for share, pixels in self.sides:
            if epoch >= share * self.epochs:
                side = pixels
        return replace(own, resize=round(own.resize * side / own.crop), crop=side)

    @property
    def state_bytes(self) -> int:
        """Bytes of the weights alone."""
        state = self.backbone.net.state_dict()
        return sum(
            t.numel() * t.element_size() * self.placement.times(name)
            for name, t in state.items()
        )
