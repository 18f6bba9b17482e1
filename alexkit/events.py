"""What compute reports, and the one channel it reports through.

Code below ``cli/`` never prints: it calls a :class:`Reporter` with an event record. The
console, the JSON writer and the run folder's log are reporters; :func:`silent` is the one
for tests, libraries and every rank but the first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Chosen:
    """An input or a value that the user left open, and by which rule it was settled."""

    name: str
    value: str
    rule: str


@dataclass(frozen=True)
class Note:
    """Something worth one line."""

    text: str


@dataclass(frozen=True)
class Warned:
    """Something that is probably not what the user wants."""

    text: str


@dataclass(frozen=True)
class StageStarted:
    """A stretch of work of known length begins.

    ``total`` and ``done`` count ``unit``s ("images", "fits", "bytes"); ``done`` > 0 when the
    stage continues earlier work.
    """

    stage: str
    total: int
    unit: str
    done: int = 0


@dataclass(frozen=True)
class StageAdvanced:
    """``done`` units of the stage are finished in all; ``values`` are live figures."""

    stage: str
    done: int
    values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageFinished:
    """A stage ended after ``seconds`` of wall time, ``done`` units in all."""

    stage: str
    done: int
    seconds: float


@dataclass(frozen=True)
class BadImage:
    """An image that could not be used as it is, and what was done about it.

    ``listed`` is the file that lists it; "" where there is none.
    """

    path: str
    reason: str
    action: str
    listed: str = ""


@dataclass(frozen=True)
class EpochDone:
    """One epoch of training is over; ``values`` are the columns of ``metrics.csv``."""

    epoch: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Saved:
    """A file or folder the user can open is complete."""

    what: str
    path: str


@dataclass(frozen=True)
class GivenUp:
    """The process ends at once, for a reason that cannot be raised: its main thread waits
    within a library, for another process that is dead. Told as errors are."""

    message: str
    hint: str


@dataclass(frozen=True)
class Finished:
    """A command is done; ``result`` is what ``--json`` prints and ``run.json`` stores."""

    command: str
    result: Mapping[str, Any]


Event = (
    Chosen
    | Note
    | Warned
    | StageStarted
    | StageAdvanced
    | StageFinished
    | BadImage
    | EpochDone
    | Saved
    | GivenUp
    | Finished
)


class Reporter(Protocol):
    """Anything that can be told an event. Called from one thread only; :class:`GivenUp` comes
    from another, while the first one is stuck."""

    def __call__(self, event: Event, /) -> None: ...


def silent(event: Event, /) -> None:
    """The reporter that says nothing."""


class Stage:
    """A stretch of work, told from its start to its end; use it in a ``with`` statement. One
    that an exception ends is not told as finished.

    Args:
        name, total, unit, done: see :class:`StageStarted`.
    """

    def __init__(
        self, report: Reporter, name: str, total: int, unit: str, done: int = 0
    ) -> None:
        self.done = done
        self._report, self._name, self._total, self._unit = report, name, total, unit

    def __enter__(self) -> Stage:
        self._began = time.monotonic()
        self._report(StageStarted(self._name, self._total, self._unit, self.done))
        return self

    def advance(self, count: int) -> None:
        """``count`` more units are done."""
        self.reach(self.done + count)

    def reach(self, done: int, values: Mapping[str, float] | None = None) -> None:
        """``done`` units are done in all."""
        self.done = done
        self._report(StageAdvanced(self._name, done, values or {}))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            seconds = time.monotonic() - self._began
            self._report(StageFinished(self._name, self.done, seconds))


def only_the_end(report: Reporter) -> Reporter:
    """A reporter for ranks but the first: why a process ends is passed on, all else is not."""

    def tell(event: Event, /) -> None:
        if isinstance(event, GivenUp):
            report(event)

    return tell
