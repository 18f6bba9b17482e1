"""``--parallel``: who does which part of a step, asked for or found by measuring."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from joblib import cpu_count
from torch import Tensor, nn

from alexkit.choices import Exchange, Parallel
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter, silent
from alexkit.models.layered import LayeredNet
from alexkit.training.hybrid import Hybrid, divisible
from alexkit.training.launch import Ranks
from alexkit.training.loop import StepResult, fit
from alexkit.training.optim import make_optimizer
from alexkit.training.parallel import Data, join
from alexkit.training.placement import Placement, Towers

WARM, TIMED = 2, 3
"""Steps of each placement before it is measured, and steps that are; the median counts."""

OF_ONE = (Parallel.SINGLE.value, Parallel.TOWERS.value)
"""Placements of one process, which has no use for others."""


@dataclass(frozen=True)
class Asked:
    """What decides a placement.

    Attributes:
        parallel: as typed.
        exchange: what travels between processes.
        ranks: the processes there are.
        batch_size: of all of them together.
        exact: whether sums must not depend on how long the run has been going on.
        by_layer: whether rates follow from whole layers (LARS).
        autocast: number type of the network's products; None is float32.
        pair: two devices of this machine for the towers of the network, where it has both.
    """

    parallel: Parallel
    exchange: Exchange
    ranks: Ranks
    batch_size: int
    exact: bool
    by_layer: bool
    autocast: torch.dtype | None = None
    pair: tuple[torch.device, ...] = ()


@dataclass(frozen=True)
class Cost:
    """Of a step: seconds, infinite where it did not fit the device, and the bytes that each
    device sends."""

    seconds: float
    sent: float

    def __str__(self) -> str:
        if math.isinf(self.seconds):
            return "does not fit the memory of its device"
        return f"{1000 * self.seconds:.0f} ms and {self.sent / 1e6:.1f} MB sent by each a step"


def placed(
    asked: Asked, net: LayeredNet, make: Callable[[], LayeredNet], report: Reporter
) -> Placement:
    """The placement of ``net`` that was asked for, all processes being connected.

    Args:
        asked: what was.
        net: on this process's device; what is divided of it is divided in place, and its
            towers move apart where that is the placement.
        make: makes another one like it, to measure with.
        report: hears the reason.

    Raises:
        UsageError: what was asked for does not go with the processes there are.
    """
    if not asked.ranks.alone:
        join(asked.ranks, net.slots[0], report)
    return placement_of(shared_by(asked, make, report), net, asked, report)


def shared_by(asked: Asked, make: Callable[[], LayeredNet], report: Reporter) -> str:
    """The word of the placement to take, said with its reason.

    Args:
        asked: what was.
        make: a network as it will be trained, on this process's device.
        report: hears what each placement took and moved, where ``auto`` had to measure.

    Raises:
        UsageError: what was asked for does not go with the processes there are.
    """
    ranks, word = asked.ranks, asked.parallel
    if ranks.alone:
        if word in (Parallel.DATA, Parallel.HYBRID):
            raise UsageError(
                f"--parallel {word.value} needs several processes",
                hint="start it with torchrun --nproc-per-node 2 --no-python alexkit train …, "
                "or name two GPUs with --device cuda:0,1",
            )
        return str(word.value)
    if word.value in OF_ONE:
        raise UsageError(
            f"--parallel {word.value} is of one process, and there are {ranks.world}",
            hint="start it without torchrun",
        )
    problem = _no_hybrid(make(), asked)
    if word is Parallel.HYBRID and problem:
        raise UsageError(f"--parallel hybrid: {problem}", hint="use --parallel data")
    if word is not Parallel.AUTO:
        return str(word.value)
    if asked.exact:
        rule = "--deterministic: what is measured may be another at the next start"
        report(Chosen("parallel", Parallel.DATA.value, rule))
        return Parallel.DATA.value
    return _measured(asked, make, problem, report)


def placement_of(word: str, net: LayeredNet, asked: Asked, report: Reporter) -> Placement:
    """The placement called ``word``; what is divided of ``net`` is divided in place."""
    narrow = asked.exchange is Exchange.BF16
    if word == Parallel.DATA.value:
        return Data(net, asked.ranks, exact=asked.exact, narrow=narrow, report=report)
    if word == Parallel.HYBRID.value:
        return Hybrid(net, asked.ranks, narrow=narrow, report=report)
    if word == Parallel.TOWERS.value and asked.pair:
        net.place(asked.pair)
    apart = len(set(net.slots)) > 1 or word == Parallel.TOWERS.value
    return Towers(net) if apart else Placement()


def use_all_cores() -> None:
    """Of one process that goes on without the others that were started beside it, each of
    which was given its share of the cores."""
    torch.set_num_threads(cpu_count())


def _no_hybrid(net: LayeredNet, asked: Asked) -> str:
    units = divisible(net)
    if not units:
        return "this network has no fc6 and fc7 to divide"
    if units % asked.ranks.world:
        return f"{units} units cannot be divided among {asked.ranks.world} processes"
    if asked.by_layer:
        return "rates by layer (LARS) need whole layers in every process"
    return ""


def _measured(
    asked: Asked, make: Callable[[], LayeredNet], no_hybrid: str, report: Reporter
) -> str:
    """The fastest of what goes. The first process decides; it alone measures what is of one."""
    ranks = asked.ranks
    together = [Parallel.DATA.value] + ([] if no_hybrid else [Parallel.HYBRID.value])
    found = {word: _cost(word, make(), asked) for word in together}
    name = "parallel"
    if ranks.rank:
        return ranks.hear(name, lambda: None)
    threads = torch.get_num_threads()
    use_all_cores()
    for word in OF_ONE if asked.pair else OF_ONE[:1]:
        found[word] = _cost(word, make(), asked)
    torch.set_num_threads(threads)
    best = min(found, key=lambda word: found[word].seconds)
    told = "; ".join(f"{word} {cost}" for word, cost in found.items())
    report(Chosen(name, best, f"measured: {told}" + (no_hybrid and f"; {no_hybrid}")))
    ranks.tell(name, best)
    return best


def _cost(word: str, net: LayeredNet, asked: Asked) -> Cost:
    """Of the slowest process."""
    placement = placement_of(word, net, asked, silent)
    places = list(range(placement.rank, asked.batch_size, placement.world))
    try:
        steps = list(_steps(net, places, asked, placement))
    except torch.OutOfMemoryError:
        if placement.world > 1:  # the others wait for this process
            raise
        return Cost(math.inf, 0.0)
    seconds = sorted([step.seconds for step in steps][WARM:])[TIMED // 2]
    slowest = max(float(text) for text in placement.texts(repr(seconds)))
    senders = 2 if word == Parallel.TOWERS.value else 1  # which counts both devices
    return Cost(slowest, sum(placement.moved.values()) / len(steps) / senders)


def _steps(
    net: LayeredNet, places: list[int], asked: Asked, placement: Placement
) -> Iterator[StepResult]:
    side = net.input_side

    def batches() -> Iterator[Tensor]:
        for _ in range(WARM + TIMED):
            yield torch.zeros(len(places), 3, side, side, device=net.slots[0])

    def prepare(x: Tensor) -> tuple[Tensor, Tensor]:
        placement.meet(net, places, asked.batch_size)
        return x, torch.zeros(len(x), dtype=torch.int64)

    return fit(
        net,
        batches(),
        make_optimizer([{"params": list(net.parameters())}]),
        prepare=prepare,
        loss_fn=nn.CrossEntropyLoss(),
        lr=lambda step: 1e-6,
        seed=0,
        autocast=asked.autocast,
        placement=placement,
    )
