"""Processes that share each batch, on torch.distributed, and the placement ``data``.

In ``data`` every process has the whole network and some rows of each batch; gradients are
summed by torch's DistributedDataParallel while the backward pass goes on.

It computes what one process computes on the whole batch, sums in another order: the loss is
a mean over all rows, batch norm takes its statistics from all, dropout is drawn for all
(:mod:`alexkit.models.division`).
"""

from __future__ import annotations

import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
    allreduce_hook,
    bf16_compress_hook,
)
from torch.distributed.distributed_c10d import PrefixStore
from torch.nn.parallel import DistributedDataParallel

from alexkit.errors import AlexkitError, WorkerFailed
from alexkit.events import GivenUp, Reporter, Warned, silent
from alexkit.models.layered import LayeredNet
from alexkit.training.checkpoint import Checkpoint
from alexkit.training.launch import Ranks
from alexkit.training.placement import Placement

HUNG_SECONDS = 40.0
"""All are in the same step then: one that does not answer for so long is not coming."""
SLOW_SECONDS = 30.0
"""Between steps a process may read or write for long; from then on it is named."""
LOST_SECONDS = 1800.0
"""And from then on it is given up, though it says that it lives."""
GRACE_SECONDS = 12.0
"""After one is known to be dead, until what waits for it inside torch is ended."""
_LONGEST_PAUSE = 0.005


def join(ranks: Ranks, device: torch.device, report: Reporter = silent) -> None:
    """Connects the processes of ``ranks``, once; GPUs talk by NCCL, processors by gloo.

    ``report`` hears if this process must end because another is dead; see
    :func:`~alexkit.events.only_the_end`.
    """
    if dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        backend,
        store=PrefixStore("group", ranks.store),
        rank=ranks.rank,
        world_size=ranks.world,
        timeout=timedelta(seconds=HUNG_SECONDS),
    )
    guard = threading.Thread(target=_guard, args=(ranks, report), name="alexkit-guard")
    guard.daemon = True
    guard.start()


def leave() -> None:
    """Takes the connections down; all processes do it together."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _guard(ranks: Ranks, report: Reporter) -> None:
    """Of a thread of its own: names a process that hangs in the middle of a step, where the
    main thread waits for it inside torch, and ends this one if it cannot get out."""
    while dist.is_initialized():
        time.sleep(1.0)
        try:
            ranks.check(everyone=True)
        except WorkerFailed as problem:
            time.sleep(GRACE_SECONDS)
            report(GivenUp(problem.message, problem.hint))
            os._exit(problem.exit_status)
        except AlexkitError:
            return


def _group(timeout: float) -> dist.ProcessGroup:
    group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout))
    assert isinstance(group, dist.ProcessGroup)
    return group


class Together(Placement):
    """What ``data`` and ``hybrid`` share.

    Args:
        ranks: the processes, all alive.
        narrow: whether what travels between them is bfloat16 instead of its own type.
        report: hears of a process that is waited for.
    """

    def __init__(
        self, ranks: Ranks, *, narrow: bool = False, report: Reporter = silent
    ) -> None:
        super().__init__()
        self.ranks = ranks
        self.rank, self.world = ranks.rank, ranks.world
        self.narrow = narrow
        self.report = report
        self.counts: list[int] = []
        self.all_places = torch.zeros(0, dtype=torch.int64)
        self.met = 0
        # Its own group: what is said between steps may wait, what is within a step may not.
        self.calm = _group(timeout=LOST_SECONDS)

    def meet(self, net: LayeredNet, places: Sequence[int], size: int, last: str = "") -> None:
        super().meet(net, places, size, last)
        self.met += 1
        self.ranks.note(self.met, last)
        # Also where all own rows could be read: others' may not.
        net.division.places = torch.as_tensor(places, dtype=torch.int64)
        room = -(-size // self.world)
        mine = torch.zeros(1 + room, dtype=torch.int64)
        mine[0] = len(places)
        mine[1 : 1 + len(places)] = net.division.places
        every = self._gathered(mine)
        self.counts = every[:, 0].tolist()
        shares = zip(every[:, 1:], self.counts, strict=True)
        self.all_places = torch.cat([row[:count] for row, count in shares])

    def images(self, own: int) -> int:
        assert own == self.counts[self.rank]
        return sum(self.counts)

    def weighed(self, loss: Tensor, own: int, total: int) -> Tensor:
        # A mean of nothing is no number.
        return loss * (own / total) if own else loss.nan_to_num() * 0.0

    def summed(self, values: Sequence[float]) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        self._wait(dist.all_reduce(total, group=self.calm, async_op=True))
        return [float(value) for value in total]

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        return tuple(value > 0 for value in self.summed([float(wish) for wish in wishes]))

    def texts(self, own: str) -> list[str]:
        data = own.encode()
        lengths = self._gathered(torch.tensor([len(data)]))[:, 0].tolist()
        mine = torch.zeros(max(max(lengths), 1), dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
        rows = self._gathered(mine)
        return [
            bytes(row[:length].numpy()).decode()
            for row, length in zip(rows, lengths, strict=True)
        ]

    def spread(self, found: Checkpoint | None) -> Checkpoint | None:
        told: dict[str, Any] = {}
        if found is not None and self.leads:
            shapes = {
                group: {name: [str(t.dtype)[6:], list(t.shape)] for name, t in own.items()}
                for group, own in found.tensors.items()
            }
            told = {"step": found.step, "scalars": found.scalars, "tensors": shapes}
        told = json.loads(self.texts(json.dumps(told))[0])
        if not told:
            return None
        tensors: dict[str, dict[str, Tensor]] = {}
        for group, shapes in told["tensors"].items():
            tensors[group] = {}
            for name, (dtype, shape) in shapes.items():
                if found is not None and self.leads:
                    tensor = found.tensors[group][name].cpu().contiguous()
                else:
                    tensor = torch.empty(shape, dtype=getattr(torch, dtype))
                self._wait(dist.broadcast(tensor, 0, group=self.calm, async_op=True))
                tensors[group][name] = tensor
        return Checkpoint(told["step"], tensors, told["scalars"])

    @contextmanager
    def blaming(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self.ranks.blame(error)
            raise

    def __deepcopy__(self, memo: dict[int, Any]) -> Together:
        """A copied network is in the same place."""
        return self

    def across(self, x: Tensor) -> Tensor:
        """The sum of ``x`` over all processes, with its gradient; batch norm's."""

        def summed(own: Tensor) -> Tensor:
            return self.reduced(own.clone(), "sums")

        total: Tensor = Linear.apply(x, summed, summed)
        return total

    def reduced(self, x: Tensor, what: str) -> Tensor:
        """The sum of ``x`` over all processes, in place, as a ring of them makes it."""
        self.count(what, 2 * (self.world - 1) * x.nbytes // self.world)
        dist.all_reduce(x)
        return x

    def every(self, own: Tensor) -> list[Tensor]:
        """A tensor of the same shape from each process."""
        parts = [torch.empty_like(own) for _ in range(self.world)]
        dist.all_gather(parts, own)
        return parts

    def gathered(self, own: Tensor) -> Tensor:
        """(M, …) of each process as (world · M, …), in the type that travels."""
        sent = (own.bfloat16() if self.narrow else own).contiguous()
        self.count("activations", (self.world - 1) * sent.nbytes)
        joined = sent.new_empty(self.world * len(sent), *sent.shape[1:])
        dist.all_gather_into_tensor(joined, sent)
        return joined

    def scattered(self, x: Tensor) -> Tensor:
        """(world · M, …) summed over processes, of which each gets its M."""
        sent = (x.bfloat16() if self.narrow else x).contiguous()
        self.count("activations", (self.world - 1) * sent.nbytes // self.world)
        own = sent.new_empty(len(sent) // self.world, *sent.shape[1:])
        dist.reduce_scatter_tensor(own, sent)
        return own

    def _gathered(self, mine: Tensor) -> Tensor:
        """(D) of each process as (world, D)."""
        every = mine.new_empty(self.world * len(mine))
        self._wait(dist.all_gather_into_tensor(every, mine, group=self.calm, async_op=True))
        return every.view(self.world, -1)

    def _wait(self, work: Any) -> None:
        """For all others; looks at how they are in the meantime.

        Raises:
            WorkerFailed: one is dead, or failed, or has not come for half an hour.
            Interrupted: one was stopped.
        """
        began, pause, told = time.monotonic(), 1e-5, False
        while not work.is_completed():
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            waited = time.monotonic() - began
            if waited > 1.0:
                self.ranks.check(everyone=True)
            if waited > SLOW_SECONDS and not told:
                told = True
                self.report(Warned(f"still waiting: {self.ranks.late(self.met)}"))
        work.wait()


class Data(Together):
    """The whole network in every process.

    Args:
        net: on its device.
        exact: gradients are summed in an order that does not depend on how long the run has
            been going on: for more than two processes torch may not regroup them then.
    """

    name = "data"

    def __init__(
        self,
        net: LayeredNet,
        ranks: Ranks,
        *,
        exact: bool = False,
        narrow: bool = False,
        report: Reporter = silent,
    ) -> None:
        super().__init__(ranks, narrow=narrow, report=report)
        # Every process has the same weights already; torch 2.6 sends them all the same.
        known = signature(DistributedDataParallel).parameters
        unsent: dict[str, Any] = {"init_sync": False} if "init_sync" in known else {}
        with warnings.catch_warnings():
            # torch 2.15 has another name for broadcast_buffers, older ones do not know it.
            warnings.simplefilter("ignore", FutureWarning)
            self._parallel = DistributedDataParallel(
                net,
                broadcast_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=exact and ranks.world > 2,
                **unsent,
            )
        # torch takes a hook whose annotations are types, not text, or a hook without any.
        self._parallel.register_comm_hook(self, lambda at, bucket: _summed(at, bucket))
        for module in net.modules():
            if hasattr(module, "across"):
                module.across = self.across  # type: ignore[assignment]

    def forward(self, net: nn.Module, x: Tensor) -> Tensor:
        logits: Tensor = self._parallel(x)
        return logits

    def weighed(self, loss: Tensor, own: int, total: int) -> Tensor:
        # The hooks of torch divide by the number of processes.
        return super().weighed(loss, own, total) * self.world


def _summed(placement: Data, bucket: Any) -> torch.futures.Future[Tensor]:
    sent = bucket.buffer()
    nbytes = sent.numel() * (2 if placement.narrow else sent.element_size())
    placement.count("gradients", 2 * (placement.world - 1) * nbytes // placement.world)
    group = dist.group.WORLD
    assert group is not None
    hook = bf16_compress_hook if placement.narrow else allreduce_hook
    return hook(group, bucket)


Map = Callable[[Tensor], Tensor]


class Linear(torch.autograd.Function):
    """A linear map of a tensor, given with its transpose."""

    @staticmethod
    def forward(context: Any, x: Tensor, there: Map, back: Map) -> Tensor:
        context.back = back
        return there(x)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        return context.back(gradient), None, None
