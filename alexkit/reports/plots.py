"""Figures of results. matplotlib lives here, without its global state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, MaxNLocator, NullFormatter, PercentFormatter

from alexkit.reports.page import Chart, Dots, Series, shown
from alexkit.whole_file import whole_file

LEARNED, HELD_OUT = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito's palette, apart for every kind of colour vision."""

OTHERS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
COLOURS = (LEARNED, HELD_OUT, *OTHERS)
"""Okabe and Ito, *Color universal design* (2008)."""
MARKERS = "osD^v<>Ph*"
DASHES = ("-", "--", ":", "-.")

DPI = 120
PRINT_DPI = 300
IMAGE_DPI = 150
"""Of figures made of images, whose own pixels are no finer."""
FORMATS = ("png", "svg")
MOST_NAMED = 24
"""Classes up to which a map names each."""


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and top-1 over the epochs, training and held-out images, as a PNG file.

    Args:
        rows: the rows of ``metrics.csv``, at least one.
        path: replaced if it exists.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    epochs = [row["epoch"] for row in rows]
    curves = (("loss", "loss (nats)"), ("top1", "top-1 accuracy"))
    for axes, (name, label) in zip(figure.subplots(1, 2), curves, strict=True):
        series = [
            Series("training", epochs, [row[f"train_{name}"] for row in rows], dashed=True),
            Series("held out", epochs, [row[name] for row in rows]),
        ]
        _lines(axes, Chart("", "epoch", label, series, ([], []), percent=name == "top1"))
    save(figure, path, dpi=DPI)


def save(figure: Figure, path: Path, *, dpi: int = PRINT_DPI) -> Path:
    """Writes a figure as its suffix says, ``.png`` or ``.svg``; replaces an older file.

    Raises:
        OSError: it cannot be written; an older file is as it was.
    """
    kind = path.suffix[1:].lower()
    # Without the date, and with ids that do not change, so that equal figures are equal files.
    metadata = {"Date": None} if kind == "svg" else {}
    with whole_file(path) as file, rc_context({"svg.hashsalt": "alexkit"}):
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)
    return path


def file_name(title: str) -> str:
    """A title as the name of a file, without a suffix."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "plot"


def draw_chart(chart: Chart) -> Figure:
    """A chart of a page for print."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    _lines(figure.subplots(), chart)
    return figure


def _lines(axes: Axes, chart: Chart) -> None:
    """Colours, markers and dashes each tell lines apart."""
    for i, one in enumerate(chart.series):
        y = np.asarray(one.y, np.float64)
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(
            one.x,
            y,
            marker=MARKERS[i % len(MARKERS)] if len(y) <= 60 else None,
            linestyle="--" if one.dashed else DASHES[i // len(COLOURS) % len(DASHES)],
            ms=4,
            color=colour,
            label=_plain(one.name),
        )
        if len(one.spread):
            around = np.asarray(one.spread, np.float64)
            axes.fill_between(
                one.x, y - around, y + around, color=colour, alpha=0.15, linewidth=0
            )
    _scales(axes, chart)
    axes.set_xlabel(_plain(chart.x_label))
    axes.set_ylabel(_plain(chart.y_label))
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.series) > 1:
        axes.legend(frameon=False, fontsize="small")


def _scales(axes: Axes, chart: Chart) -> None:
    if chart.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    places = sorted({x for one in chart.series for x in one.x})
    if chart.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    elif chart.ticks:
        axes.set_xticks(range(len(chart.ticks)), [_plain(tick) for tick in chart.ticks])
    elif all(float(x).is_integer() for x in places):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_dots(dots: Dots) -> Figure:
    """A map of a page for print, without images."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = figure.subplots()
    points, groups = np.asarray(dots.points, np.float64), np.asarray(dots.groups)
    for group in [*range(len(dots.names)), -1]:
        some = points[groups == group]
        if len(some):
            axes.scatter(
                some[:, 0],
                some[:, 1],
                s=14,
                marker=MARKERS[group % len(MARKERS)],
                color=COLOURS[group % len(COLOURS)] if group >= 0 else "#777777",
                linewidths=0.3,
                edgecolors="black",
                label=_plain(dots.names[group]) if group >= 0 else "no class",
            )
    if len(dots.names) <= MOST_NAMED:
        axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_title(_plain(dots.title), fontsize="medium")
    axes.set(xticks=[], yticks=[])
    return figure


def draw_kernels(kernels: npt.NDArray[Any], towers: int) -> Figure:
    """conv1's kernels as figure 3 of the paper has them, one block of rows a tower.

    As in the original program's ``shownet.py``, all kernels of a tower are brought to 0 … 1
    together, by the least and the largest of their weights, so that strong ones look strong.

    Args:
        kernels: (K, 3, h, w), RGB; the first K / towers are of the first tower.
        towers: 1 or 2.
    """
    across = 16
    blocks = np.split(np.asarray(kernels, np.float64), towers)
    rows = -(-len(blocks[0]) // across)
    height = 0.42 * rows * towers + 0.35 * towers
    figure = Figure(figsize=(0.42 * across, height), layout="constrained")
    each = np.atleast_1d(figure.subplots(towers, 1))
    for i, (axes, block) in enumerate(zip(each, blocks, strict=True)):
        axes.imshow(kernel_sheet(block, across), interpolation="nearest")
        axes.set_axis_off()
        if towers > 1:
            axes.set_title(f"tower {i + 1}", fontsize="small", loc="left")
    return figure


def kernel_sheet(kernels: npt.NDArray[Any], across: int) -> npt.NDArray[np.float64]:
    """(K, 3, h, w) as one (H, W, 3) image from 0 to 1, ``across`` in a row, white between."""
    low, high = kernels.min(), kernels.max()
    scaled = (kernels - low) / (high - low if high > low else 1.0)
    count, _, h, w = scaled.shape
    rows = -(-count // across)
    sheet = np.ones((rows * (h + 1) - 1, across * (w + 1) - 1, 3))
    for i, kernel in enumerate(scaled):
        y, x = (h + 1) * (i // across), (w + 1) * (i % across)
        sheet[y : y + h, x : x + w] = kernel.transpose(1, 2, 0)
    return sheet


Cell = tuple[npt.NDArray[np.uint8] | None, str]
"""An image, or None where it cannot be read, and what is written under it."""


def draw_neighbours(rows: Sequence[Sequence[Cell]]) -> Figure:
    """Images with those nearest to them, as the right of figure 4 of the paper: the query
    first, then its neighbours, nearest first."""
    across = max(map(len, rows))
    figure = Figure(figsize=(1.25 * across, 1.45 * len(rows)))
    grid = figure.subplots(len(rows), across, squeeze=False)
    figure.subplots_adjust(0.01, 0.04, 0.99, 0.99, wspace=0.06, hspace=0.18)
    for cells, line in zip(grid, rows, strict=True):
        for axes in cells:
            axes.set_axis_off()
        for axes, (image, told) in zip(cells, line, strict=False):
            if image is None:
                axes.text(0.5, 0.5, "no image", ha="center", va="center", fontsize=7)
            else:
                axes.imshow(image)
            axes.set_title(_plain(told), fontsize=7, y=-0.03, pad=0, va="top")
        cells[0].add_patch(
            Rectangle((0, 0), 1, 1, transform=cells[0].transAxes, fill=False, lw=1.5)
        )
    return figure


def _plain(text: str) -> str:
    """Text as it is: a dollar sign begins no formula, and line breaks are shown."""
    return shown(text).replace("$", r"\$")


def draw_comparison(
    names: Sequence[str],
    rsa: npt.NDArray[np.float64],
    cka: npt.NDArray[np.float64],
    path: Path,
) -> None:
    """Two (L, L) matrices of what L layers have in common, side by side, as a PNG file.

    Args:
        names: L, shown along both axes.
        rsa: Spearman's ρ; undefined (NaN) cells stay empty.
        cka: likewise.
        path: replaced if it exists.
    """
    side = 2.2 + 0.42 * len(names)
    figure = Figure(figsize=(2 * side, side), layout="constrained")
    left, right = figure.subplots(1, 2)
    short = [name if len(name) <= 24 else "…" + name[-23:] for name in names]
    for axes, matrix, title in (
        (left, rsa, "RSA, Spearman's ρ"),
        (right, cka, "CKA, linear, unbiased"),
    ):
        # Light to dark in print too; cividis reads the same for every kind of colour vision.
        least = float(np.min(matrix, where=np.isfinite(matrix), initial=0.0))
        axes.imshow(matrix, cmap="cividis", vmin=least, vmax=1.0)
        axes.set_title(title)
        axes.set_xticks(range(len(names)), short, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), short, parse_math=False)
        for (i, j), value in np.ndenumerate(matrix):
            if np.isfinite(value):
                axes.text(
                    j,
                    i,
                    f"{value:.2f}",
                    ha="center",
                    va="center",
                    size=7,
                    color="black" if value > 0.55 else "white",
                )
    save(figure, path, dpi=DPI)
