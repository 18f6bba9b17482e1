"""The training loop, and the validation beside it: only loops.

``fit`` is a generator. It yields after each step, and whoever reads it decides what is due:
validating, saving, telling, stopping. It can begin at any step and needs nothing of the
steps before but the weights, the momentum and the batches that are left, so a restart to
the bit is a matter of handing it those.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.errors import DataError
from alexkit.training.memory import blocks_kept
from alexkit.training.optim import descend
from alexkit.training.placement import Placement

BatchT = TypeVar("BatchT")
Prepare = Callable[[BatchT], tuple[Tensor, Tensor]]
"""A batch into x, (N, …) float32 where the network wants it, and y, (N) int64; to learn from
also (N, K) float32, shares of the classes."""


@dataclass(frozen=True)
class StepResult:
    """One step of training, measured on its batch before the weights moved.

    Attributes:
        step: its number, counted from 0 over the whole run.
        n: images in the batch; 0 if none could be read, and then no step was made.
        loss: what was minimised, a mean over the images; 0.0 if n is 0.
        top1: the fraction whose label had the largest logit; 0.0 if n is 0.
        gradient_norm: the length of the whole gradient; 0.0 if n is 0.
        lr: the rate, before the multiplier of a parameter group.
        seconds_waiting: time spent until the batch was there.
        seconds: time of the whole step, waiting included.
        applied: whether the weights moved; not if the loss or a gradient was not finite.
    """

    step: int
    n: int
    loss: float
    top1: float
    gradient_norm: float
    lr: float
    seconds_waiting: float
    seconds: float
    applied: bool = True


def step_seed(seed: int, step: int) -> int:
    """A 64-bit seed that depends on both, for any ``seed`` and ``step`` >= 0.

    Hashed, as ``seed + step`` would give neighbouring seeds the same run one step later.
    """
    mixed = np.random.SeedSequence(seed, spawn_key=(step,))
    return int(mixed.generate_state(1, np.uint64)[0])


def fit(
    net: nn.Module,
    batches: Iterable[BatchT],
    optimizer: torch.optim.SGD,
    *,
    prepare: Prepare[BatchT],
    loss_fn: Callable[[Tensor, Tensor], Tensor],
    lr: Callable[[int], float],
    seed: int,
    first_step: int = 0,
    rescale: Callable[[], None] | None = None,
    autocast: torch.dtype | None = None,
    placement: Placement | None = None,
) -> Iterator[StepResult]:
    """Trains on each of ``batches`` and yields after each.

    torch's global random state is seeded from (``seed``, step) at each step, so dropout and
    whatever ``prepare`` draws are the same however the run was cut.

    Args:
        net: gives logits (N, K), on any device.
        batches: what is left to do, beginning with the batch of ``first_step``.
        optimizer: from :func:`alexkit.training.optim.make_optimizer`.
        prepare: brings a batch to the network's device; its time is not waiting.
        loss_fn: logits and y, on one device, to a scalar, a mean over the batch.
        lr: the learning rate of a step, by its number.
        seed: of everything random, >= 0.
        first_step: the number of the first batch.
        rescale: changes the gradients before each step, e.g. by layer
            (:func:`alexkit.training.lars.rescale`).
        autocast: number type of the network's products, e.g. bfloat16; None is float32. The
            loss is float32 in any case.
        placement: with whom this process shares each batch; nobody if None. ``prepare`` has
            met the others for the batch, and what is told of a step is of all of it.

    A step whose loss or gradient is not finite is not applied, and says so: weights, momentum
    and the running statistics of batch norm are as the step before left them.
    """
    net.train()
    placement = placement or Placement()
    buffers = list(net.buffers())
    began = time.perf_counter()
    on_cpu = all(parameter.is_cpu for parameter in net.parameters())
    with blocks_kept() if on_cpu else nullcontext():
        for step, batch in enumerate(batches, first_step):
            arrived = time.perf_counter()
            torch.manual_seed(step_seed(seed, step))
            x, y = prepare(batch)
            rate = lr(step)
            loss = top1 = norm = 0.0
            applied = False
            n = placement.images(len(x))
            if n:
                # Batch norm moves them in the forward pass; a few kB.
                before = [buffer.clone() for buffer in buffers]
                optimizer.zero_grad()
                with casting(x.device, autocast):
                    logits = placement.forward(net, x)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
                y = y.to(logits.device, non_blocking=True)
                objective = loss_fn(logits, y)
                torch.autograd.backward(placement.weighed(objective, len(x), n))
                placement.reduce()
                loss, top1, norm = _figures(objective, logits, y, net, placement)
                applied = math.isfinite(loss) and math.isfinite(norm)
                if applied:
                    if rescale is not None:
                        rescale()
                    descend(optimizer, rate)
                else:
                    for buffer, kept in zip(buffers, before, strict=True):
                        buffer.copy_(kept)
            yield StepResult(
                step=step,
                n=n,
                loss=loss,
                top1=top1,
                gradient_norm=norm,
                lr=rate,
                seconds_waiting=arrived - began,
                seconds=time.perf_counter() - began,
                applied=applied,
            )
            began = time.perf_counter()


def _figures(
    objective: Tensor, logits: Tensor, y: Tensor, net: nn.Module, placement: Placement
) -> tuple[float, float, float]:
    """Loss, top-1 and gradient norm of the whole batch, in one transfer, the only one of a
    step.

    The norm reads every gradient: 10 ms for 61 M on two cores, under 1 % of a step at batch
    64. It is what keeps a gradient that is not finite out of the weights.
    """
    gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    norm = placement.length(gradients)
    true = y if y.ndim == 1 else y.argmax(dim=1)
    right = (logits.detach().argmax(dim=1) == true).float().sum()
    figures = torch.stack((objective.detach().float(), right, norm.float().to(right.device)))
    loss, hits, length = figures.tolist()
    # Of no rows a mean is no number.
    told = [loss * len(y) if len(y) else 0.0, hits, float(len(y))]
    losses, hits, n = placement.summed(told)
    return losses / n, hits / n, length


def casting(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Under it products are of ``dtype``; None changes nothing."""
    return torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None)


def validate(
    net: nn.Module,
    batches: Iterable[BatchT],
    *,
    prepare: Prepare[BatchT],
    seen: Callable[[BatchT, Tensor], None] = lambda batch, logits: None,
    autocast: torch.dtype | None = None,
    placement: Placement | None = None,
) -> dict[str, float]:
    """Judges ``net`` on every image of ``batches``, each once, without dropout.

    Sums are float64 over images, so the way they are divided into batches does not weigh.

    Args:
        net: gives logits (N, K); its training mode is left as it was.
        batches: every labelled image once; a batch may be empty.
        prepare, autocast, placement: as for :func:`fit`.
        seen: given each batch that is not empty with its logits, (N, K), where they are.

    Returns:
        ``loss`` (mean cross-entropy, nats), ``top1`` and ``top5`` (fractions; with fewer
        than five classes top5 is 1) and ``n``, the number of images.

    Raises:
        DataError: there was no image at all.
    """
    placement = placement or Placement()
    was_training = net.training
    net.eval()
    totals = torch.zeros(3, dtype=torch.float64)
    n = 0
    try:
        with torch.inference_mode():
            for batch in batches:
                x, y = prepare(batch)
                if placement.images(len(x)):
                    with casting(x.device, autocast):
                        logits = net(x)
                    totals = totals.to(logits.device) + _tally(logits, y.to(logits.device))
                    if len(x):
                        seen(batch, logits)
                    n += len(x)
    finally:
        net.train(was_training)
    *sums, all_images = placement.summed([*totals.tolist(), float(n)])
    if not all_images:
        raise DataError(
            "there is no readable image to judge by", hint="look at the bad images' reasons"
        )
    loss, top1, top5 = (value / all_images for value in sums)
    return {"loss": loss, "top1": top1, "top5": top5, "n": int(all_images)}


def _tally(logits: Tensor, y: Tensor) -> Tensor:
    """Summed over images: loss, right at first, right among five; (3) float64."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = (best == y[:, None]).double()
    loss = F.cross_entropy(logits.double(), y, reduction="sum")
    return torch.stack((loss, right[:, 0].sum(), right.sum()))
