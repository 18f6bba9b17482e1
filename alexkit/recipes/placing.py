"""``--parallel``: who does which part of a step, asked for or found by measuring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alexkit.choices import Exchange, Parallel
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter
from alexkit.models.layered import LayeredNet
from alexkit.training.hybrid import Hybrid, divisible
from alexkit.training.launch import Ranks
from alexkit.training.loop import fit
from alexkit.training.optim import make_optimizer
from alexkit.training.parallel import Data, Together, join
from alexkit.training.placement import Placement, Towers

WARM, TIMED = 2, 3
"""Steps of each placement before it is measured, and steps that are; the median counts."""


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
    """

    parallel: Parallel
    exchange: Exchange
    ranks: Ranks
    batch_size: int
    exact: bool
    by_layer: bool


def shared_by(asked: Asked, make: Callable[[], LayeredNet], report: Reporter) -> str:
    """The word of the placement to take, said with its reason.

    Args:
        asked: what was.
        make: a network as it will be trained, on this process's devices.
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
    if word in (Parallel.SINGLE, Parallel.TOWERS):
        raise UsageError(
            f"--parallel {word.value} is of one process, and there are {ranks.world}",
            hint="start it without torchrun",
        )
    problem = _no_hybrid(make(), asked)
    if word is Parallel.HYBRID and problem:
        raise UsageError(f"--parallel hybrid: {problem}", hint="use --parallel data")
    if word is not Parallel.AUTO:
        return str(word.value)
    if problem:
        report(Chosen("parallel", Parallel.DATA.value, problem))
        return Parallel.DATA.value
    found = {
        name: _measured(name, make(), asked)
        for name in (Parallel.DATA.value, Parallel.HYBRID.value)
    }
    best = min(found, key=lambda name: found[name][0])
    told = "; ".join(
        f"{name} {1000 * seconds:.0f} ms and {moved / 1e6:.1f} MB sent by each a step"
        for name, (seconds, moved) in found.items()
    )
    report(Chosen("parallel", best, f"measured: {told}"))
    return best


def placement_of(word: str, net: LayeredNet, asked: Asked, report: Reporter) -> Placement:
    """The placement called ``word``; what is divided of ``net`` is divided in place."""
    narrow = asked.exchange is Exchange.BF16
    if word == Parallel.DATA.value:
        return Data(net, asked.ranks, exact=asked.exact, narrow=narrow, report=report)
    if word == Parallel.HYBRID.value:
        return Hybrid(net, asked.ranks, narrow=narrow, report=report)
    apart = len(set(net.slots)) > 1 or word == Parallel.TOWERS.value
    return Towers() if apart else Placement()


def connected(ranks: Ranks, device: torch.device) -> None:
    """All processes of ``ranks`` can send one another tensors of ``device``."""
    if not ranks.alone:
        join(ranks, device)


def _no_hybrid(net: LayeredNet, asked: Asked) -> str:
    units = divisible(net)
    if not units:
        return "this network has no fc6 and fc7 to divide"
    if units % asked.ranks.world:
        return f"{units} units cannot be divided among {asked.ranks.world} processes"
    if asked.by_layer:
        return "rates by layer (LARS) need whole layers in every process"
    return ""


def _measured(word: str, net: LayeredNet, asked: Asked) -> tuple[float, float]:
    """Seconds of a step, of the slowest process, and the bytes that one sends in it."""
    placement = placement_of(word, net, asked, lambda event: None)
    assert isinstance(placement, Together)
    side = net.input_side
    places = list(range(placement.rank, asked.batch_size, placement.world))

    def batches() -> Iterator[Tensor]:
        for _ in range(WARM + TIMED):
            yield torch.zeros(len(places), 3, side, side, device=net.slots[0])

    def prepare(x: Tensor) -> tuple[Tensor, Tensor]:
        placement.meet(net, places, asked.batch_size)
        return x, torch.zeros(len(x), dtype=torch.int64)

    steps = fit(
        net,
        batches(),
        make_optimizer([{"params": list(net.parameters())}]),
        prepare=prepare,
        loss_fn=nn.CrossEntropyLoss(),
        lr=lambda step: 1e-6,
        seed=0,
        placement=placement,
    )
    seconds = sorted([step.seconds for step in steps][WARM:])[TIMED // 2]
    slowest = max(float(text) for text in placement.texts(repr(seconds)))
    return slowest, sum(placement.moved.values()) / (WARM + TIMED)
