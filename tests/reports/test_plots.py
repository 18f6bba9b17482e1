"""Pictures are files that open, with both curves in them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from alexkit.reports.page import Chart, Series
from alexkit.reports.plots import (
    COLOURS,
    FORMATS,
    HELD_OUT,
    LEARNED,
    draw_chart,
    draw_curves,
    draw_kernels,
    draw_neighbours,
    file_name,
    kernel_sheet,
    save,
)


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


def test_a_chart_of_a_page_is_drawn_for_print(tmp_path: Path) -> None:
    lines = [
        Series("a $b$ <c>", [1.0, 5.0, 30.0], [0.1, float("nan"), 0.3], [0.01, 0.02, 0.03]),
        Series("second", [1.0, 30.0], [0.4, 0.5], dashed=True),
    ]
    chart = Chart("A title, with: signs", "x", "y", lines, ([], []), percent=True, log=True)
    figure = draw_chart(chart)
    assert file_name(chart.title) == "a-title-with-signs"
    for kind in FORMATS:
        save(figure, tmp_path / f"plot.{kind}")
    with Image.open(tmp_path / "plot.png") as drawn:
        assert drawn.width > 1500
    svg = (tmp_path / "plot.svg").read_text()
    assert svg.rstrip().endswith("</svg>")
    assert "<dc:date>" not in svg
    axes = figure.axes[0]
    assert len({line.get_marker() for line in axes.lines}) == 2
    assert len({line.get_color() for line in axes.lines}) == 2
    assert len({line.get_linestyle() for line in axes.lines}) == 2


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_figures_are_equal_files(kind: str, tmp_path: Path) -> None:
    band = Series("f", [0.0, 1.0], [0.1, 0.2], [0.05, 0.05])
    chart = Chart("t", "x", "y", [band], ([], []))
    one, other = (save(draw_chart(chart), tmp_path / f"{n}.{kind}") for n in "ab")
    assert one.read_bytes() == other.read_bytes()


def test_layers_keep_their_names(tmp_path: Path) -> None:
    one = Series("f", [0.0, 1.0], [0.1, 0.2])
    chart = Chart("t", "layer", "y", [one], ([], []), ticks=("conv1", "fc_7"))
    labels = [text.get_text() for text in draw_chart(chart).axes[0].get_xticklabels()]
    assert labels == ["conv1", "fc_7"]


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_on_a_full_disk_no_half_of_a_figure_is_left(kind: str, small_disk: Path) -> None:
    figure = draw_chart(Chart("t", "x", "y", [Series("f", [0.0, 1.0], [0.1, 0.2])], ([], [])))
    with (small_disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, 2**21 - 2**12)
    with pytest.raises(OSError, match="No space left"):
        save(figure, small_disk / f"f.{kind}")
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_colours_stay_apart_for_every_kind_of_colour_vision() -> None:
    """Viénot, Brettel & Mollon (1999): what protanopes and deuteranopes see of linear RGB."""
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    rgb = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    for seen in (np.eye(3), protan, deutan):
        values = np.clip(rgb @ seen.T, 0, 1) ** (1 / 2.2)
        far = np.linalg.norm(values[:, None] - values[None], axis=2)
        assert far[~np.eye(len(COLOURS), dtype=bool)].min() > 0.1


def test_kernels_of_a_tower_share_their_scale() -> None:
    rng = np.random.default_rng(0)
    weak, strong = rng.normal(0, 0.01, (1, 3, 11, 11)), rng.normal(0, 1, (19, 3, 11, 11))
    kernels = np.concatenate([weak, strong])
    sheet = kernel_sheet(kernels, 16)
    assert sheet.shape == (23, 191, 3)
    low, high = kernels.min(), kernels.max()
    again = sheet[:11, :11].transpose(2, 0, 1) * (high - low) + low
    assert again == pytest.approx(kernels[0], abs=1e-12)
    again = sheet[12:, 36:47].transpose(2, 0, 1) * (high - low) + low
    assert again == pytest.approx(kernels[19], abs=1e-12)
    assert (sheet[11] == 1).all()
    assert sheet.max() == 1
    assert sheet.min() == 0


def test_towers_are_drawn_apart() -> None:
    kernels = np.random.default_rng(0).normal(0, 1, (96, 3, 11, 11))
    kernels[48:] *= 100
    figure = draw_kernels(kernels, 2)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["tower 1", "tower 2"]
    for axes, part in zip(figure.axes, np.split(kernels, 2), strict=True):
        drawn = np.asarray(axes.images[0].get_array())
        assert drawn == pytest.approx(kernel_sheet(part, 16))
        assert drawn.shape == (3 * 12 - 1, 16 * 12 - 1, 3)
    assert len(draw_kernels(kernels[:64], 1).axes) == 1


def test_neighbours_are_a_grid_with_the_query_first() -> None:
    photo = np.zeros((20, 20, 3), np.uint8)
    rows = [
        [(photo, "rose $1"), (None, "0.1"), (photo, "0.2")],
        [(photo, "tulip"), (photo, "3")],
    ]
    figure = draw_neighbours(rows)
    assert len(figure.axes) == 6
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [r"rose \$1", "0.1", "0.2", "tulip", "3", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 0, 1, 1, 1, 0]
