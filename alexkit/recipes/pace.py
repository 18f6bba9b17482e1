"""How long an extraction will take, said once it can be known."""

from __future__ import annotations

import time

from alexkit.events import Note, Reporter

LEAST_SECONDS = 5.0
LEAST_BATCHES = 4
"""Batches of several threads come together: over a few of them alone, any pace is measured."""


class Pace:
    """Says once, after some seconds and batches, how long the rest will take.

    Args:
        total: images in all.
        done: of them, before it begins.
        report: hears it.
    """

    def __init__(self, total: int, done: int, report: Reporter) -> None:
        self._total, self._first, self._report = total, done, report
        self._batches, self._began, self._told = 0, time.monotonic(), False

    def tell(self, done: int) -> None:
        """After each batch, with how many images are done."""
        self._batches += 1
        seconds, left = time.monotonic() - self._began, self._total - done
        early = seconds < LEAST_SECONDS or self._batches < LEAST_BATCHES
        if early or self._told or not left:
            return
        self._told = True
        rate = (done - self._first) / seconds
        wait = left / rate
        time_left = f"{wait / 60:.0f} minutes" if wait > 90 else f"{wait:.0f} s"
        self._report(
            Note(f"{left:,} images are left: about {time_left} at {rate:.1f} images/s")
        )
