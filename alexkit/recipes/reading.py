"""The pixels of a pack in the memory of a GPU, where they fit, and said."""

from __future__ import annotations

import torch

from alexkit.events import Chosen, Reporter
from alexkit.images.packed import PixelPack
from alexkit.images.resident import SHARE, ResidentPixels, budget
from alexkit.images.source import ImageSource
from alexkit.reports.tables import size


def resident_pixels(
    source: ImageSource, device: torch.device, report: Reporter
) -> ResidentPixels | None:
    """A pack of pixels that takes no more than :data:`~alexkit.images.resident.SHARE` of the
    memory that is free on ``device``, measured now, copied there; None otherwise."""
    found = budget(source, device)
    if found is None or not isinstance(source, PixelPack):
        return None
    told = f"{size(found.needed)}, {size(found.free)} free on {device}"
    if not found.fits:
        report(Chosen("images from", "the pack", f"{told}, more than {SHARE:.0%} of it"))
        return None
    report(Chosen("images from", f"the memory of {device}", told))
    return ResidentPixels(source, device)
