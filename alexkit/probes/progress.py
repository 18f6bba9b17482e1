"""How far the judging of a layer is, in fits: one class, one C, one fold."""

from __future__ import annotations

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


class Progress(Stage):
    """The stage of a layer: counts fits, and passes on, once, what a solver has chosen.

    Args:
        total: fits in all, at the most.
    """

    def __init__(self, report: Reporter = silent, total: int = 0) -> None:
        super().__init__(report, STAGE, total, "fits")
        self._said = set[str]()

    def solver(self, fits: int) -> Reporter:
        """What a solver of so many problems, all a fit, is to report to."""

        def tell(event: Event) -> None:
            match event:
                case StageStarted(stage) | StageFinished(stage) | StageAdvanced(stage) if (
                    stage != SOLVING
                ):
                    self._report(event)
                case StageAdvanced(_, done):
                    self._report(StageAdvanced(STAGE, self.done + done * fits // PERCENT))
                case Chosen(_, value) if value not in self._said:
                    self._said.add(value)
                    self._report(event)

        return tell
