"""Pictures of results. matplotlib lives here, without its global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

LEARNED, HELD_OUT = "#0072B2", "#D55E00"
"""Blue and vermilion of Okabe and Ito's palette, apart for every kind of colour vision."""

DPI = 120


def draw_curves(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss and top-1 over the epochs, training and held-out images, as a PNG file.

    Args:
        rows: the rows of ``metrics.csv``, at least one.
        path: replaced if it exists.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    loss, top1 = figure.subplots(1, 2)
    _draw(loss, rows, "loss", "loss (nats)")
    _draw(top1, rows, "top1", "top-1 accuracy")
    top1.yaxis.set_major_formatter(PercentFormatter(1.0))
    top1.legend(frameon=False)
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=DPI)
    partial.replace(path)


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
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png", dpi=DPI)
    partial.replace(path)


def _draw(axes: Axes, rows: Sequence[Mapping[str, float]], name: str, label: str) -> None:
    epochs = [row["epoch"] for row in rows]
    # Dashes as well as colour, for print and for those who see no difference.
    axes.plot(
        epochs,
        [row[f"train_{name}"] for row in rows],
        "o--",
        ms=3,
        color=LEARNED,
        label="training",
    )
    axes.plot(epochs, [row[name] for row in rows], "o-", ms=3, color=HELD_OUT, label="held out")
    axes.set_xlabel("epoch")
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
