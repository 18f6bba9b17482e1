"""Everything a fit needs, settled before its run folder is made."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource
from alexkit.models.zoo import Backbone
from alexkit.recipes.inputs import Holdout
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
    """

    backbone: Backbone
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
        state = self.backbone.net.canonical_state_dict().values()
        return sum(t.numel() * t.element_size() for t in state)
