"""What was taken for what: a shaded table of few classes, an image of many."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from alexkit.probes.metrics import most_confused
from alexkit.reports.page import Block, Grid, Picture, Shaded, data_uri
from alexkit.reports.tables import percent

Counts = npt.NDArray[np.int64]

MOST_CELLS_A_SIDE = 25
"""Classes up to which every cell can be read."""
MOST_PAIRS = 50


def confusion_blocks(counts: Counts, names: Sequence[str]) -> list[Block]:
    """(K, K) counts, true class down, as a table or an image, and the pairs most confused."""
    if not counts.size or not counts.sum():
        return []
    blocks: list[Block] = []
    if len(names) <= MOST_CELLS_A_SIDE:
        told = "Images by true class (down) and predicted class (across)"
        blocks.append(Shaded(names, counts.tolist(), told))
    else:
        blocks.append(_picture(counts))
    totals = counts.sum(axis=1).tolist()
    pairs = [
        [names[true], names[taken], str(n), percent(n / totals[true])]
        for true, taken, n in most_confused(counts, MOST_PAIRS)
    ]
    if pairs:
        header = ["true class", "taken for", "images", "of the class"]
        blocks.append(Grid((header, pairs), "Classes most often taken for another"))
    return blocks


def _picture(counts: Counts) -> Picture:
    """A pixel a cell: white is none, the more of its row the darker, by square root."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    levels = np.rint(255 * np.sqrt(shares)).astype(np.uint8)
    ramp = np.linspace((255, 255, 255), (0, 40, 90), 256).round().astype(np.uint8)
    image = Image.fromarray(levels, mode=None).convert("P")
    image.putpalette(ramp.tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    told = (
        f"Confusion of {len(counts):,} classes: a dot a pair, true class down, predicted class "
        "across, in the order of the class table; the darker, the larger a share of the true "
        "class. What lies on the diagonal was right."
    )
    return Picture(data_uri(file.getvalue(), "png"), told)
