"""A run between two steps as a checkpoint, and back: a list of small states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor, nn

from alexkit.models.layered import LayeredNet
from alexkit.recipes.plan import Plan
from alexkit.recipes.progress import Progress
from alexkit.training.averaging import Average
from alexkit.training.checkpoint import Checkpoint
from alexkit.training.optim import load_optimizer_state, optimizer_state


class RunState:
    """Weights, momentum, their average if there is one, and the schedule of a plan.

    Attributes:
        net: the network that learns.
        average: of its weights over the last steps, or None.
        judged: the network that is judged and written, one of the two.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.net = plan.net
        steps = plan.epochs * plan.steps_per_epoch
        net = plan.backbone.net
        self.average = None
        if plan.average and isinstance(net, LayeredNet):  # of `train`, which has no others
            self.average = Average(net, steps)
        self.judged = self.average.net if self.average else self.net

    @property
    def copies(self) -> int:
        """How often a checkpoint has something of the size of the weights."""
        return 3 if self.average else 2

    def finite(self) -> bool:
        """Whether every weight, of all processes, is a number; one pass over them."""
        length = nn.utils.get_total_norm(list(self.net.parameters()))
        return not self.plan.placement.agreed(not math.isfinite(length))[0]

    def canonical(self, net: Any) -> dict[str, Tensor]:
        """The whole tensors of ``net``, one that learns, by canonical name; all processes ask
        together."""
        if isinstance(net, LayeredNet):
            return net.to_canonical(self.plan.placement.whole(net.state_dict()))
        state: dict[str, Tensor] = net.canonical_state_dict()
        return state

    def load(self, net: Any, state: Mapping[str, Tensor]) -> None:
        """Copies canonical tensors into ``net``, or what belongs here of them."""
        if isinstance(net, LayeredNet):
            net.load_state_dict(self.plan.placement.parts(net.from_canonical(state)))
        else:
            net.load_canonical(state)

    def checkpoint(self, step: int, progress: Progress) -> Checkpoint:
        """The state before ``step``; its tensors are the live ones."""
        placement = self.plan.placement
        buffers, rates = optimizer_state(self.plan.optimizer, self.net)
        tensors = {"weights": self.canonical(self.net), "optimizer": placement.whole(buffers)}
        scalars: dict[str, Any] = {
            "progress": asdict(progress),
            "schedule": self.plan.schedule.state_dict(),
            "rates": rates,
        }
        if self.average:
            tensors["average"] = self.canonical(self.average.net)
            scalars["averaged"] = self.average.count
        return Checkpoint(step, tensors, scalars)

    def restore(self, checkpoint: Checkpoint) -> Progress:
        """Takes back what :meth:`checkpoint` gave, and returns where the run stands."""
        tensors, scalars = checkpoint.tensors, checkpoint.scalars
        self.load(self.net, tensors["weights"])
        if self.average:
            self.load(self.average.net, tensors["average"])
            self.average.restore(scalars["averaged"])
        load_optimizer_state(
            self.plan.optimizer,
            self.net,
            self.plan.placement.parts(tensors["optimizer"]),
            scalars["rates"],
        )
        self.plan.schedule.load_state_dict(scalars["schedule"])
        return Progress(**scalars["progress"])
