"""``predictions.csv``: what became of each held-out image.

A fit writes it with its best weights, from the very logits those were chosen by, so that it
costs no second pass and always belongs to ``weights/best.safetensors``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from alexkit.errors import DamagedFile
from alexkit.images.batches import Batch
from alexkit.images.source import ImageSource
from alexkit.probes.outcomes import Outcomes
from alexkit.reports.tables import save_csv

PREDICTIONS = "predictions.csv"
COLUMNS = ("path", "class", "predicted", "p_class", "p_predicted", "top5")
"""Of a fit: the true and the predicted class, the probability of each, whether the true one
is among the five most probable (1 or 0)."""
PROBE_COLUMNS = ("path", "class", "predicted", "margin", "right", "tested")
"""Of ``eval``, for its best layer: see :class:`alexkit.probes.outcomes.Outcomes`."""


class Predictions:
    """The held-out images of one epoch, gathered batch by batch.

    Args:
        source: whose rows the batches name.
        classes: K names; index = label = logit.
    """

    def __init__(self, source: ImageSource, classes: Sequence[str]) -> None:
        self._source, self._classes = source, classes
        self._parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]] = []

    def clear(self) -> None:
        """Forgets the epoch before."""
        self._parts.clear()

    def add(self, batch: Batch, logits: Tensor) -> None:
        """Takes in a batch of labelled rows and their (B, K) logits."""
        p = logits.double().softmax(dim=1)
        y = batch.labels.to(p.device)[:, None]
        top = logits.topk(min(5, p.shape[1]), dim=1).indices  # as validate() counts
        first = top[:, :1]
        told = (y, first, p.gather(1, y), p.gather(1, first), (top == y).any(dim=1))
        columns = [column.double().reshape(len(p)).cpu().numpy() for column in told]
        self._parts.append((batch.rows, np.stack(columns, axis=1)))

    def share(self, texts: Callable[[str], list[str]]) -> None:
        """Every process takes in what each has gathered; ``texts`` gives all for one's own."""
        own = [[rows.tolist(), values.tolist()] for rows, values in self._parts]
        self._parts = [
            (np.array(rows, np.int64), np.array(values, np.float64).reshape(-1, 5))
            for text in texts(json.dumps(own))
            for rows, values in json.loads(text)
        ]

    def write(self, path: Path) -> None:
        """Writes what was gathered, in the order of the source; replaces an older file."""
        rows = np.concatenate([part for part, _ in self._parts])
        values = np.concatenate([part for _, part in self._parts])
        order = np.argsort(rows, kind="stable")
        rows, values = rows[order], values[order]
        save_csv(path, COLUMNS, map(self._line, rows.tolist(), values.tolist()))

    def _line(self, row: int, values: Sequence[float]) -> list[Any]:
        label, predicted, p_class, p_predicted, top5 = values
        names = self._classes[int(label)], self._classes[int(predicted)]
        path = self._source.record(row).path
        return [path, *names, f"{p_class:.6g}", f"{p_predicted:.6g}", int(top5)]


def probe_lines(
    outcomes: Outcomes,
    paths: Sequence[str],
    labels: npt.NDArray[np.int64],
    classes: Sequence[str],
) -> Iterable[list[Any]]:
    """The lines of :data:`PROBE_COLUMNS` for the rows that were tested, in their order."""
    for row in map(int, np.flatnonzero(outcomes.tested)):
        names = classes[int(labels[row])], classes[int(outcomes.predicted[row])]
        counts = int(outcomes.right[row]), int(outcomes.tested[row])
        yield [paths[row], *names, f"{outcomes.margin[row]:.6g}", *counts]


def read_predictions(path: Path) -> list[dict[str, str]]:
    """The lines of a ``predictions.csv`` by its columns; none where there is no file.

    Raises:
        DamagedFile: it is no such file, or a line is cut.
    """
    if not path.exists():
        return []
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        lines = list(reader)
    whole = tuple(reader.fieldnames or ()) in (COLUMNS, PROBE_COLUMNS)
    if not whole or any(None in line or None in line.values() for line in lines):
        raise DamagedFile(
            f"{path} is not as alexkit wrote it", hint="delete it, or make the run again"
        )
    return lines
