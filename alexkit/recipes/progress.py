"""Where a run stands, and its ``metrics.csv``."""

from __future__ import annotations

from dataclasses import dataclass, field

from alexkit.training.loop import StepResult

METRICS = "metrics.csv"


@dataclass
class Progress:
    """Where a run stands: epochs done, batches done of the next one, and what came of them.

    ``sums`` are over the images of the unfinished epoch; ``metrics`` has a row for each
    finished one; ``best`` is the row with the highest held-out top-1, the earliest of equals,
    or, with ``keep_last``, the last one.
    ``skipped`` counts the steps that were not applied, ``in_a_row`` those since the last that
    was.
    """

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    skipped: int = 0
    in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)
    keep_last: bool = False

    @property
    def best(self) -> dict[str, float] | None:
        if self.keep_last:
            return self.metrics[-1] if self.metrics else None
        return max(self.metrics, key=lambda row: row["top1"], default=None)

    def add(self, step: StepResult) -> None:
        """Counts one finished step; one that was not applied has no figures."""
        self.batch += 1
        self.seconds += step.seconds
        told = {"seconds": step.seconds, "waiting": step.seconds_waiting}
        if step.applied:
            told |= {"images": step.n, "loss": step.loss * step.n, "right": step.top1 * step.n}
            self.in_a_row = 0
        elif step.n:
            self.skipped += 1
            self.in_a_row += 1
        for name, value in told.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
