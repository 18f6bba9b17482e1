"""Pictures are files that open, with both curves in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from alexkit.reports.plots import HELD_OUT, LEARNED, draw_curves


@pytest.mark.parametrize("epochs", [1, 30])
def test_both_curves_are_drawn(epochs: int, tmp_path: Path) -> None:
    rows = [
        {"epoch": e, "train_loss": 2 / e, "loss": 2.5 / e, "train_top1": 0.5, "top1": 0.4}
        for e in range(1, epochs + 1)
    ]
    draw_curves(rows, tmp_path / "curves.png")
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    assert pixels.shape[1] == 960
    for colour in (LEARNED, HELD_OUT):
        near = np.abs(pixels - np.array(to_rgb(colour)) * 255).max(axis=2) < 8
        left, right = near[:, :480].sum(), near[:, 480:].sum()
        assert left > 10
        assert right > 10
