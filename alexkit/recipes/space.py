"""The disk that a command will fill, looked at before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from alexkit.errors import OutOfSpace
from alexkit.events import Chosen, Reporter
from alexkit.reports.tables import size

SPARE_BYTES = 8 << 20
"""For the record, the metrics, the curves and the file system's own needs."""


def need(folder: Path, nbytes: int, what: str, hint: str) -> int:
    """The bytes that are free on the disk of ``folder``.

    Raises:
        OutOfSpace: ``what`` needs more; nothing was written.
    """
    free = shutil.disk_usage(folder).free
    if nbytes > free:
        raise OutOfSpace(f"{what} needs {size(nbytes)}, and {size(free)} are free", hint=hint)
    return free


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
    free = need(
        folder, needed, f"the run in {folder}", "free some space, or choose another --out"
    )
    said = f"{size(needed)} at most, {size(free)} free"
    report(Chosen("disk", said, "three checkpoints and three weight files"))
