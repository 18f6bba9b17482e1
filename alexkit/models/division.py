"""Which part of a batch, and of the classifier, a process has.

Here is the process that has both: every function gives back what it was given. One that
shares the work with others (:mod:`alexkit.training.parallel`) has some rows of the batch,
and may have some units of fc6 and fc7 for all rows. A network asks its division at the five
places where that matters, and knows no more of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Halves = tuple[Tensor, ...]
"""One layer's maps or units cut in two along dim 1, each half on its own device; or whole, in
a network of one tower."""


class Division:
    """All rows of a batch, and all units.

    Attributes:
        size: images the batch was to have, those that could not be read and those of other
            processes included.
        places: (B) int64 on the CPU, where in that batch each row is; None: row i is at i.
    """

    size: int = 0
    places: Tensor | None = None

    def rows(self, h: Halves) -> Halves:
        """What fc6 reads of own rows, (B, D) each, into that of all rows it is to work on."""
        return h

    def units(self, h: Halves) -> Halves:
        """The units of fc6 that are computed here into all units, for fc7 to read."""
        return h

    def brought(self, half: Tensor, device: torch.device) -> Tensor:
        """One tower's maps or units to the device of the other, which reads them too."""
        return half.to(device)

    def logits(self, fc8: nn.Linear, x: Tensor) -> Tensor:
        """``fc8`` of the units of fc7 that are computed here, (N, D), as (B, K) of own rows."""
        out: Tensor = fc8(x)
        return out

    def noise(self, h: Halves, draw: Callable[[Tensor], Tensor], *, of_units: bool) -> Halves:
        """Noise for (B, D) values, drawn for the whole batch in its order, so that a row of it
        depends on the seed, the place in the batch and the unit, on nothing else.

        Args:
            h: what the noise is for.
            draw: makes it of ones, (size, all units) on the first half's device.
            of_units: whether ``h`` are units computed here, else what own rows have.
        """
        del of_units
        first, widths = h[0], [part.shape[1] for part in h]
        rows = len(first) if self.places is None else self.size
        drawn = draw(torch.ones(rows, sum(widths), device=first.device, dtype=first.dtype))
        if self.places is not None:
            drawn = drawn[self.places.to(drawn.device)]
        parts = torch.split(drawn, widths, dim=1)
        return tuple(part.to(own.device) for part, own in zip(parts, h, strict=True))

    def __deepcopy__(self, memo: dict[int, Any]) -> Division:
        """A copied network is in the same place."""
        return self
