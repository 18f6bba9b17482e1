"""How far features move when large images are decoded smaller, and only their crop resized."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from alexkit.errors import UnreadableImage
from alexkit.events import Note, Reporter
from alexkit.features.extract import TappedNet
from alexkit.images.batches import ReadyPixels
from alexkit.images.decode import decode
from alexkit.images.preprocess import Pixels, Preprocess
from alexkit.images.source import ImageSource

LOOKED_AT = 32
"""Images, drawn evenly over the rows, that are decoded both ways."""


def measure_drift(
    source: ImageSource,
    net: TappedNet,
    layers: Sequence[str],
    preprocess: Preprocess,
    device: torch.device,
    report: Reporter,
) -> dict[str, Any]:
    """Compares ``decode = fast`` with the exact way on images of ``source``, and tells.

    Args:
        net: on ``device``; evaluation mode is left on.

    Returns:
        ``looked_at`` and ``smaller``, how many images were decoded and how many of them come
        out smaller, and ``layers``: for each the median and the largest of
        ‖fast - exact‖ / ‖exact‖ over all; empty where there are none.
    """
    if isinstance(source, ReadyPixels):
        report(Note("a pack is decoded already: --decode fast changes nothing"))
        return {"looked_at": 0, "smaller": 0, "layers": {}}
    rows = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int)).tolist()
    pairs = [pair for row in rows if (pair := _both(source, row, preprocess)) is not None]
    smaller = sum(pair.smaller for pair in pairs)
    net.eval()
    apart: dict[str, list[float]] = {layer: [] for layer in layers}
    for pair in pairs:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.stack((pair.exact, pair.fast))).to(device)
            taps = net.taps(preprocess.normalise(pixels), layers)
        for layer, (exact, fast) in taps.items():
            share = torch.linalg.vector_norm(fast - exact) / torch.linalg.vector_norm(exact)
            apart[layer].append(float(share))
    found = {
        layer: {"median": float(np.median(shares)), "largest": max(shares)}
        for layer, shares in apart.items()
        if shares
    }
    text = f"fast: {smaller} of {len(pairs)} images looked at are decoded smaller"
    for layer, share in found.items():
        text += f"; {layer} moves by {share['median']:.1%}, at most {share['largest']:.1%}"
    report(Note(text))
    return {"looked_at": len(pairs), "smaller": smaller, "layers": found}


class _Pair(NamedTuple):
    """One image both ways, (crop, crop, 3) uint8, and whether it was decoded smaller."""

    exact: Pixels
    fast: Pixels
    smaller: bool


def _both(source: ImageSource, row: int, preprocess: Preprocess) -> _Pair | None:
    exact = replace(preprocess, decode="exact")
    try:
        data = source.read(row)
        whole = decode(data, exif=preprocess.exif).rgb
        small = decode(data, exif=preprocess.exif, at_least=preprocess.at_least).rgb
    except UnreadableImage:
        return None
    smaller = small.shape != whole.shape
    return _Pair(exact.square(whole), preprocess.square(small), smaller)
