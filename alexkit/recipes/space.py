"""The disk a training run will fill, before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from alexkit.errors import OutOfSpace
from alexkit.events import Chosen, Reporter

SPARE_BYTES = 8 << 20
"""For the record, the metrics, the curves and the file system's own needs."""


def tell_space(folder: Path, weight_bytes: int, copies: int, report: Reporter) -> None:
    """Says what a run needs at most: three checkpoints (the last two, and one being written)
    of ``copies`` times the weights, and three weight files (best, last, one being written).
    What an earlier part of the run left in ``folder`` counts as there already.

    Raises:
        OutOfSpace: less is free.
    """
    files = [path for path in folder.rglob("*") if path.is_file()]
    there = sum(path.stat().st_size for path in files)
    needed = max(0, 3 * (copies + 1) * weight_bytes + SPARE_BYTES - there)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutOfSpace(
            f"the run needs up to {needed / 1e6:,.0f} MB in {folder}, "
            f"and {free / 1e6:,.0f} MB are free",
            hint="make room, or choose another --out",
        )
    said = f"{needed / 1e6:,.0f} MB at most, {free / 1e6:,.0f} MB free"
    report(Chosen("disk", said, "three checkpoints and three weight files"))
