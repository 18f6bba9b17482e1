"""What a fit learns from: pixels, augmented anew at every epoch, or what is stored of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from alexkit.images.augment import augment
from alexkit.images.batches import Batch, ToSquare, read_batches
from alexkit.images.draws import Rows
from alexkit.images.prefetch import on_device
from alexkit.images.preprocess import Preprocess
from alexkit.models.layered import LayeredNet
from alexkit.recipes.ledger import Ledger
from alexkit.training.loop import Prepare

if TYPE_CHECKING:
    from alexkit.recipes.plan import Plan

LEFT_OUT = "left out"


class Feed(Protocol):
    """Batches of rows, and what brings one to the network: x on its device, and y."""

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """Rows to learn from, in their order, as they are in ``epoch``."""
        ...

    def judging(self, rows: Rows) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """Rows to judge by, in their order."""
        ...


MakeFeed = Callable[["Plan", Ledger], Feed]


class Pixels:
    """Images decoded as they are needed; what cannot be read is noted and left out."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self.plan = plan
        self.ledger = ledger

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """Cropped and mirrored at random by (seed, epoch, row)."""
        plan = self.plan
        preprocess = plan.preprocess_at(epoch)
        color = epoch < plan.color * plan.epochs

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            self._begin(batch)
            x = augment(
                batch.pixels,
                preprocess,
                seed=plan.seed,
                epoch=epoch,
                rows=batch.rows,
                color=color,
            )
            return x, batch.labels

        return self.read(rows, preprocess, preprocess.train_square), prepare

    def judging(self, rows: Rows) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """The exact evaluation path."""
        preprocess = self.plan.backbone.preprocess

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            self._begin(batch)
            return preprocess.normalise(batch.pixels), batch.labels

        return self.read(rows, preprocess, preprocess.square), prepare

    def whole(self, rows: Rows) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """Rows to judge by as uint8 squares, larger than the network's, that views are cut
        from."""
        preprocess = self.plan.backbone.preprocess

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            self._begin(batch)
            return batch.pixels, batch.labels

        return self.read(rows, preprocess, preprocess.train_square), prepare

    def read(self, rows: Rows, preprocess: Preprocess, to_square: ToSquare) -> Iterator[Batch]:
        """Batches of uint8 squares, made by ``to_square`` of ``preprocess``, those that were
        repaired noted; from the device's own memory where they are there as they are."""
        plan, device, resident = self.plan, self._device, self.plan.resident
        if resident is not None and resident.side == preprocess.resize:
            side = to_square(np.zeros((resident.side, resident.side, 3), np.uint8)).shape[0]
            ready = resident.batches(rows, batch_size=plan.batch_size, side=side)
            return self.ledger.watch(ready)
        batches = read_batches(
            plan.source,
            rows,
            to_square,
            batch_size=plan.batch_size,
            threads=plan.threads,
            exif=preprocess.exif,
            at_least=preprocess.at_least,
            rank=plan.placement.rank,
            ranks=plan.placement.world,
            pin=device.type == "cuda",
        )
        return self.ledger.watch(on_device(batches, device))

    def _begin(self, batch: Batch) -> None:
        """Notes what could not be read, and begins the batch with whoever shares it."""
        plan, rows = self.plan, batch.rows
        last = plan.source.record(int(rows[-1])).path if len(rows) else ""
        net = plan.backbone.net
        if isinstance(net, LayeredNet):  # torchvision's draw their own noise, in one process
            plan.placement.meet(net, batch.places.tolist(), batch.size, last)
        for bad in batch.bad:
            self.ledger.add(bad.path, bad.reason, LEFT_OUT)

    @property
    def _device(self) -> torch.device:
        return self.plan.backbone.net.slots[0]


class Unaugmented(Pixels):
    """Images learnt from as they are judged."""

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        return self.judging(rows)


class Mixed:
    """Each image of a batch blended with another, and their labels likewise (Zhang et al.
    2018, arXiv:1710.09412): the share is drawn once a batch from Beta(alpha, alpha), by the
    state that the loop seeds at each step. Pairs are among the rows that one process has, and
    only ``finetune``, which is of one process, blends."""

    def __init__(self, feed: Feed, alpha: float, classes: int) -> None:
        self.feed = feed
        self.alpha = alpha
        self.classes = classes

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """Blended; y is (N, K)."""
        batches, prepare = self.feed.learning(rows, epoch)
        return batches, lambda batch: self._mix(*prepare(batch))

    def judging(self, rows: Rows) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """As they are."""
        return self.feed.judging(rows)

    def _mix(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        share = float(torch.distributions.Beta(self.alpha, self.alpha).sample())
        other = torch.randperm(len(x))
        hot = torch.nn.functional.one_hot(y, self.classes).float()
        return share * x + (1 - share) * x[other], share * hot + (1 - share) * hot[other]


def mixing(make: MakeFeed, alpha: float, classes: int) -> MakeFeed:
    """What ``make`` makes, :class:`Mixed`."""
    return lambda plan, ledger: Mixed(make(plan, ledger), alpha, classes)
