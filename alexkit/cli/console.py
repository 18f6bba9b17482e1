"""What people and programs see: bars and notes on stderr, results on stdout.

Three reporters, chosen once: live bars where stderr is a terminal, plain lines where it is
not, one JSON event a line on stdout with ``--json``. Everything that comes from a file name
is shown as data: markup is off and control characters are escaped.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from alexkit.cli.sparkline import Sparkline
from alexkit.events import (
    BadImage,
    Chosen,
    EpochDone,
    Event,
    Finished,
    GivenUp,
    Note,
    Saved,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Warned,
)
from alexkit.reports.tables import csv_bytes

PLAIN_LINE_SECONDS = 10.0
"""Without a terminal, one line of progress at most this often."""

SHOWN_BAD_IMAGES = 5
"""After this many lines about bad images a person has understood; the ledger, where there is
one, has them all."""

SHOWN_ROWS = 1000
"""A terminal keeps little more, and laying out a million rows takes minutes."""

NUMERIC = re.compile(r"[-–]?[\d.,]*( [%± ]|$)")


def shown(text: str) -> str:
    """Text from outside made safe for a terminal: control characters become escapes."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def tell_error(message: str, hint: str) -> None:
    """One ``error:`` line and one ``hint:`` line on stderr, if it takes them."""
    with suppress(OSError):  # a log on the disk that is full: the exit status still tells
        sys.stderr.write(f"error: {shown(message)}\nhint: {shown(hint)}\n")
        sys.stderr.flush()


def figure(value: float) -> str:
    """A number in as few characters as keep four digits of it."""
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def sentence(event: Event) -> str | None:
    """The line that tells an event to a person; None where bars tell it."""
    match event:
        case Chosen(name, value, rule):
            return f"{name}: {value} ({rule})"
        case Note(text):
            return text
        case Warned(text):
            return f"warning: {text}"
        case BadImage(path, reason, action):
            return f"bad image: {path}: {reason} ({action})"
        case EpochDone(epoch, values):
            return f"epoch {epoch}: " + _figures(values)
        case Saved(what, path):
            return f"{what}: {path}"
        case _:
            return None


def _figures(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {figure(value)}" for name, value in values.items())


def event_record(event: Event) -> dict[str, Any]:
    """The event as JSON-safe values; ``event`` is its kind in snake case."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", type(event).__name__).lower()
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    return {"event": kind, **fields}


def json_line(record: Mapping[str, Any]) -> str:
    """One strict JSON line: NaN and infinity, which JSON lacks, become null."""

    def strict(value: Any) -> Any:
        if isinstance(value, float) and not math.isfinite(value):
            return None
        if isinstance(value, Mapping):
            return {str(k): strict(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [strict(v) for v in value]
        return value

    return json.dumps(strict(record), ensure_ascii=True, allow_nan=False)


class JsonReporter:
    """One event a line on stdout, and nothing else there."""

    def __call__(self, event: Event, /) -> None:
        sys.stdout.write(json_line(event_record(event)) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing is held back."""


class PlainReporter:
    """Lines on stderr, for logs and pipes: no bars, no colours, not too many of them."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bad_images = 0
        self._stages: dict[str, StageStarted] = {}
        self._began: dict[str, float] = {}
        self._told: dict[str, float] = {}

    def __call__(self, event: Event, /) -> None:
        if self._quiet and not isinstance(event, Warned):
            return
        match event:
            case StageStarted(stage, total, unit, done):
                self._stages[stage] = event
                self._began[stage] = self._told[stage] = time.monotonic()
                self.line(
                    f"{stage}: {total - done} {unit}"
                    + (f", {done} done already" if done else "")
                )
            case StageAdvanced(stage, done, values):
                self._progress(stage, done, values)
            case StageFinished(stage, done, seconds):
                start = self._stages.pop(stage)
                rate = (done - start.done) / max(seconds, 1e-9)
                self.line(f"{stage}: done in {seconds:.1f} s, {figure(rate)} {start.unit}/s")
            case _:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        if isinstance(event, BadImage):
            self._bad_images += 1
            if self._bad_images == SHOWN_BAD_IMAGES + 1:
                where = f": {event.listed} lists all" if event.listed else ", not shown here"
                self.line(f"more bad images{where}")
            if self._bad_images > SHOWN_BAD_IMAGES:
                return
        text = sentence(event)
        if text is not None:
            self.line(text)

    def _progress(self, stage: str, done: int, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        start = self._stages[stage]
        if now - self._told[stage] < PLAIN_LINE_SECONDS:
            return
        self._told[stage] = now
        rate = (done - start.done) / (now - self._began[stage])
        left = f"{(start.total - done) / rate:.0f} s" if rate else "an unknown time"
        live = f"  {_figures(values)}" if values else ""
        self.line(
            f"{stage}: {done}/{start.total} {start.unit}, {figure(rate)}/s, {left} left{live}"
        )

    def line(self, text: str) -> None:
        """One line on stderr, at once."""
        sys.stderr.write(shown(text) + "\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Nothing is held back."""


class LiveReporter(PlainReporter):
    """Bars with rate and time left while a stage runs; everything else is a line above them."""

    def __init__(self) -> None:
        super().__init__(quiet=False)
        self._console = RichConsole(stderr=True, markup=False, highlight=False)
        self._progress_bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[live]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._losses = Sparkline()

    def __call__(self, event: Event, /) -> None:
        bars = self._progress_bars
        match event:
            case StageStarted(stage, total, unit, done):
                self._stages[stage] = event
                self._began[stage] = time.monotonic()
                bars.start()
                self._tasks[stage] = bars.add_task(
                    stage, total=total, completed=done, live=unit
                )
            case StageAdvanced(stage, done, values):
                start = self._stages[stage]
                seconds = max(time.monotonic() - self._began[stage], 1e-9)
                rate = f"{figure((done - start.done) / seconds)} {start.unit}/s"
                if "loss" in values:
                    self._losses.add(values["loss"])
                curve = str(self._losses) if "loss" in values else ""
                live = "  ".join(part for part in (rate, _figures(values), curve) if part)
                bars.update(self._tasks[stage], completed=done, live=live)
            case StageFinished(stage):
                bars.remove_task(self._tasks.pop(stage))
                if not self._tasks:
                    bars.stop()
                super().__call__(event)
            case _:
                self._tell(event)

    def line(self, text: str) -> None:
        """One line above the bars."""
        self._console.print(Text(shown(text)), soft_wrap=True)

    def close(self) -> None:
        """Takes the bars off the screen."""
        self._progress_bars.stop()


class Console:
    """The outlet of one command: ``report`` for events, ``table`` and ``line`` for results."""

    def __init__(self, *, json: bool, quiet: bool) -> None:
        self._json = json
        self._reporter: JsonReporter | PlainReporter
        if json:
            self._reporter = JsonReporter()
        elif sys.stderr.isatty() and not quiet:
            self._reporter = LiveReporter()
        else:
            self._reporter = PlainReporter(quiet)

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *_: object) -> None:
        self._reporter.close()

    def report(self, event: Event, /) -> None:
        """Tells an event in the way that was chosen; the end of the process as every error."""
        if isinstance(event, GivenUp):
            self._reporter.close()
            tell_error(event.message, event.hint)
        else:
            self._reporter(event)

    def finish(self, command: str, result: Mapping[str, Any]) -> None:
        """Hands the result to programs; people get it through :meth:`table`."""
        self.report(Finished(command, result))

    def line(self, text: str) -> None:
        """A line of the result, on stdout."""
        if not self._json:
            sys.stdout.write(shown(text) + "\n")

    def csv(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows of the result, on stdout, as CSV wherever that goes: to the byte, but for what
        a terminal would obey."""
        if self._json:
            return
        text = csv_bytes(header, rows).decode("utf-8", "surrogateescape")
        if sys.stdout.isatty():
            text = "\n".join(map(shown, text.split("\n")))
        sys.stdout.write(text)

    def rows(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Many rows of the result, on stdout: CSV in a pipe, on a terminal the first ones."""
        if self._json:
            return
        if not sys.stdout.isatty():
            self.csv(header, rows)
            return
        self.table(header, rows[:SHOWN_ROWS])
        if len(rows) > SHOWN_ROWS:
            self.line(f"{len(rows) - SHOWN_ROWS:,} more rows: in a pipe or a file they are CSV")

    def table(
        self, header: Sequence[str], rows: Iterable[Sequence[str]], title: str = ""
    ) -> None:
        """A table of the result, on stdout, at most as wide as the terminal (80 in a pipe)."""
        if self._json:
            return
        cells = [[shown(cell) for cell in row] for row in rows]
        table = Table(
            title=Text(shown(title)) if title else None,
            title_justify="left",
            show_header=any(header),
        )
        for i, name in enumerate(header):
            numeric = all(NUMERIC.match(row[i]) for row in cells)
            table.add_column(name, justify="right" if numeric else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        width = None if sys.stdout.isatty() else 80
        RichConsole(width=width, markup=False, highlight=False).print(table)
