"""Learning rates over the epochs: two that follow from the epoch alone, one that listens.

Time is counted in epochs done, with fractions: 0.0 at the start, 1.0 after one pass. A step
lasts for 1 / steps_per_epoch of an epoch and takes the rate at its middle, so that the
first and the last step of a run both have one above zero, and a rate that changes at the
end of epoch 25 is in force from the first step of the next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Schedule(Protocol):
    """What the training recipes ask of a schedule."""

    def lr(self, epoch: float) -> float:
        """The learning rate after ``epoch`` epochs, above zero while the run lasts."""
        ...

    def observe(self, error: float) -> bool:
        """Takes the validation error of the epoch just done; True if the rate drops now."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What must be kept to continue, JSON-safe; empty if the epoch says it all."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave, of a schedule made with equal arguments."""
        ...


def lr_at_step(schedule: Schedule, step: int, steps_per_epoch: int) -> float:
    """The rate of ``step``, counted from 0 over the whole run: that at its middle."""
    return schedule.lr((step + 0.5) / steps_per_epoch)


class _ByEpoch:
    """A schedule that the epoch alone decides: nothing to observe, nothing to keep."""

    def observe(self, error: float) -> bool:
        return False

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        assert not state, f"a schedule without state was given {sorted(state)}"


@dataclass(frozen=True)
class Steps(_ByEpoch):
    """``base``, multiplied by ``factor`` once each of ``drops`` epochs has passed.

    The 2012 run, by the comments in its own configuration (layer-params-145.cfg), is
    ``Steps(0.01, (25, 51, 79))``; torchvision's AlexNet is ``Steps(0.01, (30, 60))``.
    """

    base: float
    drops: tuple[float, ...]
    factor: float = 0.1

    def lr(self, epoch: float) -> float:
        return self.base * self.factor ** sum(epoch >= drop for drop in self.drops)


@dataclass(frozen=True)
class Decay(_ByEpoch):
    """From ``base`` to 0 at the end of ``epochs``, after a warm-up.

    During the first ``warmup`` epochs the rate climbs along a straight line from 0. From
    there it falls along a straight line (as in cvjena's cnn-models, the source of the batch
    norm recipe), raised to ``power``, or, if ``cosine``, along half a cosine.
    """

    base: float
    epochs: float
    warmup: float = 0.0
    cosine: bool = False
    power: int = 1

    def __post_init__(self) -> None:
        assert 0 <= self.warmup < self.epochs

    def lr(self, epoch: float) -> float:
        if epoch < self.warmup:
            return self.base * epoch / self.warmup
        done = min(1.0, (epoch - self.warmup) / (self.epochs - self.warmup))
        if self.cosine:
            return self.base * (1 + math.cos(math.pi * done)) / 2
        return self.base * (1 - done) ** self.power


@dataclass
class Plateau:
    """``base``, divided by 10 when the validation error stops falling, three times at most.

    NIPS 2012 §5 has the base of 0.01, the divisor and the three times, and says that it was
    done by hand; what "stops" means is ours: no error in ``patience`` epochs in a row was
    lower by ``least_gain`` than the best before them.

    Attributes:
        best: the lowest error that counted so far, as a fraction; None before the first.
        stalled: epochs since then, or since the last drop.
        drops: how often the rate was divided.
    """

    base: float = 0.01
    patience: int = 5
    least_gain: float = 0.001
    factor: float = 0.1
    most_drops: int = 3
    best: float | None = None
    stalled: int = 0
    drops: int = 0

    def lr(self, epoch: float) -> float:
        return self.base * self.factor**self.drops

    def observe(self, error: float) -> bool:
        if self.best is None or error <= self.best - self.least_gain:
            self.best, self.stalled = error, 0
            return False
        self.stalled += 1
        if self.stalled < self.patience or self.drops == self.most_drops:
            return False
        self.stalled = 0
        self.drops += 1
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "stalled": self.stalled, "drops": self.drops}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.stalled, self.drops = state["best"], state["stalled"], state["drops"]
