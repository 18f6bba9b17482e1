"""How far the judging of a layer is, in fits: one class, one C, one fold."""

from __future__ import annotations

import time

from alexkit.events import (
    Chosen,
    Event,
    Reporter,
    Stage,
    StageAdvanced,
    StageFinished,
    StageStarted,
    silent,
)

STAGE = "probe"
SOLVING = "svm"
"""A solver's own stage."""
PERCENT = 100
"""In which a solver counts its own way."""


def solving(report: Reporter) -> Stage:
    """The stage of a solver, in percent of its problems."""
    return Stage(report, SOLVING, PERCENT, "percent")


class Progress:
    """Counts fits and tells how many there are; passes on, once, what a solver has chosen.

    Args:
        total: fits in all; as many are told at the end, however many were found to be needed.
    """

    def __init__(self, report: Reporter = silent, total: int = 0) -> None:
        self.report, self.total = report, total
        self._done, self._said, self._began = 0, set[str](), time.perf_counter()
        report(StageStarted(STAGE, total, "fits"))

    def solver(self, fits: int) -> Reporter:
        """What a solver of so many problems, all a fit, is to report to."""

        def tell(event: Event) -> None:
            match event:
                case StageStarted(stage) | StageFinished(stage) | StageAdvanced(stage) if (
                    stage != SOLVING
                ):
                    self.report(event)
                case StageAdvanced(_, done):
                    self._show(self._done + done * fits // PERCENT)
                case Chosen(_, value) if value not in self._said:
                    self._said.add(value)
                    self.report(event)

        return tell

    def fitted(self, fits: int) -> None:
        """So many more are done."""
        self._done += fits
        self._show(self._done)

    def finish(self) -> None:
        """All are done."""
        self.report(StageFinished(STAGE, self.total, time.perf_counter() - self._began))

    def _show(self, done: int) -> None:
        self.report(StageAdvanced(STAGE, min(done, self.total)))
