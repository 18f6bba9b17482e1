"""A run that was stopped anywhere ends with the bits of one that never was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.training.checkpoint import Checkpoint, CheckpointFolder
from alexkit.training.loop import fit
from alexkit.training.optim import load_optimizer_state, make_optimizer, optimizer_state
from alexkit.training.schedule import Decay, Plateau, Schedule, lr_at_step
from tests.training.conftest import MakeBatches, MakeNet


class Run:
    """A small training run as a recipe holds it: fresh objects, and one list of states."""

    STEPS_PER_EPOCH = 4

    def __init__(self, net: nn.Module, schedule: Schedule, *, channels_last: bool) -> None:
        self.net = net.to(memory_format=torch.channels_last) if channels_last else net
        self.optimizer = make_optimizer([{"name": "all", "params": self.net.parameters()}])
        self.schedule = schedule
        self.step = 0

    def train(self, batches: list[tuple[Tensor, Tensor]], until: int) -> None:
        def lr(step: int) -> float:
            return lr_at_step(self.schedule, step, self.STEPS_PER_EPOCH)

        results = fit(
            self.net,
            batches[self.step : until],
            self.optimizer,
            prepare=lambda pair: pair,
            loss_fn=F.cross_entropy,
            lr=lr,
            seed=11,
            first_step=self.step,
        )
        for result in results:
            self.step = result.step + 1
            if self.step % self.STEPS_PER_EPOCH == 0:
                self.schedule.observe(0.5)

    def checkpoint(self) -> Checkpoint:
        momentum, rates = optimizer_state(self.optimizer, self.net)
        tensors = {"weights": self.net.state_dict(), "optimizer": momentum}
        scalars = {"rates": rates, "schedule": self.schedule.state_dict()}
        return Checkpoint(self.step, tensors, scalars)

    def load(self, checkpoint: Checkpoint) -> None:
        self.net.load_state_dict(dict(checkpoint.tensors["weights"]))
        load_optimizer_state(
            self.optimizer,
            self.net,
            checkpoint.tensors["optimizer"],
            checkpoint.scalars["rates"],
        )
        self.schedule.load_state_dict(checkpoint.scalars["schedule"])
        self.step = checkpoint.step


def bits(checkpoint: Checkpoint) -> Mapping[str, Any]:
    return {
        f"{group}/{name}": tensor.contiguous().numpy().tobytes()
        for group, own in checkpoint.tensors.items()
        for name, tensor in own.items()
    } | {"scalars": checkpoint.scalars, "step": checkpoint.step}


SCHEDULES = {
    # Drops after epochs 2, 3 and 4: between, at and beside the places where the run is cut.
    "plateau": lambda: Plateau(0.05, patience=1),
    "decay": lambda: Decay(0.1, epochs=6, warmup=1),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_restart_is_exact_to_the_bit_wherever_the_run_is_cut(
    tmp_path: Path,
    make_net: MakeNet,
    make_batches: MakeBatches,
    schedule: str,
    channels_last: bool,
) -> None:
    batches = make_batches(0, 22)
    whole = Run(make_net(seed=1), SCHEDULES[schedule](), channels_last=channels_last)
    whole.train(batches, until=22)
    wanted = bits(whole.checkpoint())
    for cuts in ([1], [7], [8], [12], [21], [3, 4, 13]):
        folder = CheckpointFolder(tmp_path / str(cuts))
        run = Run(make_net(seed=1), SCHEDULES[schedule](), channels_last=channels_last)
        for cut in cuts:
            run.train(batches, until=cut)
            folder.save(run.checkpoint())
            torch.manual_seed(999)  # another process begins with other random numbers
            run = Run(make_net(seed=99), SCHEDULES[schedule](), channels_last=channels_last)
            found = CheckpointFolder(tmp_path / str(cuts)).latest()
            assert found is not None
            run.load(found.checkpoint)
        run.train(batches, until=22)
        assert bits(run.checkpoint()) == wanted, cuts
