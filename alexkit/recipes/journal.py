"""What a run writes about its epochs: ``metrics.csv``, its curves, TensorBoard's events."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from alexkit.recipes.progress import METRICS
from alexkit.reports.plots import draw_curves
from alexkit.reports.tables import save_csv

CURVES = "curves.png"
EVENTS = "events"

TAGS = {
    "train_loss": "loss/train",
    "loss": "loss/held out",
    "train_top1": "top-1/train",
    "top1": "top-1/held out",
    "top5": "top-5/held out",
    "lr": "learning rate",
    "images_per_second": "speed/images a second",
    "waiting": "speed/share waiting for images",
}
"""A column of the metrics -> what TensorBoard calls it; before the slash, what it is grouped
by."""


class Journal:
    """The record of the epochs of one run, in its folder.

    TensorBoard's events need its package (the extra ``tensorboard``); it is looked for, and
    loaded only where it is installed, once the first epoch is done. A run that is continued
    writes a file of its own, which tells TensorBoard to forget the epochs from there on.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: Any = None
        self._wanted = find_spec("tensorboard") is not None

    def add(self, rows: Sequence[dict[str, float]]) -> None:
        """Writes ``metrics.csv`` anew and adds the last of its ``rows`` to the events."""
        save_csv(self.folder / METRICS, list(rows[0]), [list(row.values()) for row in rows])
        if self._wanted:
            self._add_event(rows[-1])

    def draw(self, rows: Sequence[dict[str, float]]) -> None:
        """Draws the curves, if an epoch is done."""
        if rows:
            draw_curves(list(rows), self.folder / CURVES)

    def close(self) -> None:
        """Brings the events to the disk."""
        if self._writer is not None:
            self._writer.close()

    def _add_event(self, row: dict[str, float]) -> None:
        # Optional, and a second to load: its own writer, without tensorflow or torch's.
        events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        summaries = importlib.import_module("tensorboard.compat.proto.summary_pb2")
        epoch = int(row["epoch"])
        if self._writer is None:
            writers = importlib.import_module("tensorboard.summary.writer.event_file_writer")
            self._writer = writers.EventFileWriter(str(self.folder / EVENTS))
            begun = events.SessionLog(status=events.SessionLog.START)
            self._writer.add_event(
                events.Event(wall_time=time.time(), step=epoch, session_log=begun)
            )
        values = [
            summaries.Summary.Value(tag=tag, simple_value=row[name])
            for name, tag in TAGS.items()
        ]
        self._writer.add_event(
            events.Event(
                wall_time=time.time(), step=epoch, summary=summaries.Summary(value=values)
            )
        )
        self._writer.flush()
