"""SIGINT and SIGTERM as a question that loops ask between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from alexkit.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether a signal asked this process to stop, and which."""

    def __init__(self) -> None:
        self._name = ""

    def __bool__(self) -> bool:
        return bool(self._name)

    def catch(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. The second signal of a kind no longer waits for a step's end."""
        self._name = signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else _interrupt)

    def check(self, kept: str) -> None:
        """Raises Interrupted if a signal came; ``kept`` says what is safe on disk."""
        if self._name:
            raise Interrupted(
                f"stopped by {self._name}; {kept}", hint="the same command continues from there"
            )


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@contextmanager
def stop_requests() -> Iterator[Stop]:
    """While the block runs, SIGINT and SIGTERM set the yielded :class:`Stop`.

    Outside the main thread, where Python allows no handlers, nothing is caught.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.catch) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
