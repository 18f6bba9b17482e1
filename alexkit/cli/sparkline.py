"""A curve of a few characters: ``█▆▄▃▂▂▁▁``."""

from __future__ import annotations

import math

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 16


class Sparkline:
    """All values so far in at most :data:`WIDTH` characters, the oldest first.

    Each character is the mean of equally many values, twice as many whenever they no longer
    fit, so that memory and time do not grow with the run.
    """

    def __init__(self) -> None:
        self._means: list[float] = []
        self._each = 1
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Takes one more value; one that is not finite leaves no mark."""
        if not math.isfinite(value):
            return
        self._sum += value
        self._count += 1
        if self._count < self._each:
            return
        self._means.append(self._sum / self._count)
        self._sum, self._count = 0.0, 0
        if len(self._means) == 2 * WIDTH:
            self._means = [sum(two) / 2 for two in zip(*[iter(self._means)] * 2, strict=True)]
            self._each *= 2

    def __str__(self) -> str:
        shown = self._means
        if len(shown) > WIDTH:
            shown = [
                sum(shown[i : i + 2]) / len(shown[i : i + 2]) for i in range(0, len(shown), 2)
            ]
        if len(shown) < 2:
            return ""
        low, high = min(shown), max(shown)
        scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
        return "".join(BARS[round((value - low) * scale)] for value in shown)
