"""Signals, and the end of the time allowed, as a question that loops ask between steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from alexkit.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""SIGUSR1 is what a batch system sends ahead of the end (SLURM: ``--signal=USR1@120``)."""

MAX_TIME = "--max-time"


class Stop:
    """Whether this process is to stop, and by what.

    Args:
        seconds: from now, after which it is; None is never.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._name = ""
        self._end = None if seconds is None else time.monotonic() + seconds

    def __bool__(self) -> bool:
        if not self._name and self._end is not None and time.monotonic() >= self._end:
            self._name = MAX_TIME
        return bool(self._name)

    def catch(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. The second signal of a kind no longer waits for a step's end."""
        self._name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else _interrupt)

    def ask(self) -> None:
        """It is to stop, as a process that it shares its work with is."""
        self._name = self._name or "another process"

    def check(self, kept: str) -> None:
        """Raises Interrupted if it is to stop; ``kept`` says what is safe on disk."""
        if self:
            raise Interrupted(
                f"stopped by {self._name}; {kept}", hint="the same command continues from there"
            )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def stop_requests(seconds: float | None = None) -> Iterator[Stop]:
    """While the block runs, SIGINT, SIGTERM, SIGUSR1 and ``seconds`` set what is yielded.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    stop = Stop(seconds)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.catch) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
