"""How long a device waits for images, and the one change that would help."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from alexkit.events import Reporter, Warned
from alexkit.images.batches import Batch, ReadyPixels
from alexkit.images.source import ImageSource
from alexkit.recipes.devices import decode_threads

SETTLED_AFTER = 10.0
"""Seconds of work after which the share is taken for what it will be."""
TOO_MUCH = 0.1
"""Share of the time from which waiting is worth a word."""
_FILLING = 2
"""Batches at the beginning that everything waits for, whatever the machine."""


class Meter:
    """Watches batches go by; warns once when their reader waits too long for them.

    Args:
        source: where the images come from.
        threads: decode threads.
        passes: how often the images will be read; packing pays from the second.
        report: where the warning goes.
    """

    def __init__(
        self, source: ImageSource, threads: int, passes: int, report: Reporter
    ) -> None:
        self._source = source
        self._threads = threads
        self._passes = passes
        self._report = report
        self._waited = self._seconds = 0.0
        self._told = False

    @property
    def waiting(self) -> float:
        """The share of the time, 0 to 1, that went by until a batch was there."""
        return self._waited / self._seconds if self._seconds else 0.0

    def watch(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches, timed: until each is there, and until the next is asked for."""
        began = time.perf_counter()
        for number, batch in enumerate(batches):
            arrived = time.perf_counter()
            yield batch
            ended = time.perf_counter()
            if number >= _FILLING:
                self._waited += arrived - began
                self._seconds += ended - began
                self._tell()
            began = ended

    def _tell(self) -> None:
        if self._told or self._seconds < SETTLED_AFTER:
            return
        self._told = True
        if self.waiting >= TOO_MUCH:
            share = f"{self.waiting:.0%} of the time goes by waiting for images"
            self._report(Warned(f"{share}: {self._remedy()}"))

    def _remedy(self) -> str:
        cores = decode_threads(None)
        if self._threads < cores:
            return f"--workers {cores} would use all cores"
        if isinstance(self._source, ReadyPixels):
            return "the pack would be read faster from another disk, or from memory"
        if self._passes > 1:
            return "alexkit pack decodes them once and for all"
        return "decoding is what takes it; more cores would help"
