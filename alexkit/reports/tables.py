"""Results, as the recipes return them, into the header and rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Table = tuple[list[str], list[list[str]]]
"""Header cells, then rows of cells."""


def percent(fraction: float | None) -> str:
    """0.8312 as ``83.1 %``."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def spread(score: Mapping[str, float], splits: int) -> str:
    """A mean with its standard deviation over splits, where there is more than one."""
    mean = percent(score["mean"])
    return f"{mean[:-2]} ± {100 * score['std']:.1f} %" if splits > 1 else mean


def size(count: int) -> str:
    """Bytes as people say them: 1536 as ``1.5 kB`` (powers of 1000)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def features_table(result: Mapping[str, Any]) -> Table:
    """One row a layer of a finished extraction or of an opened feature file."""
    rows = [
        [layer, " × ".join(map(str, shape)), str(result["rows"]), str(result["bad"])]
        for layer, shape in result["layers"].items()
    ]
    return ["layer", "shape", "rows", "bad"], rows


def fit_table(result: Mapping[str, Any]) -> Table:
    """The held-out accuracy of one trained network."""
    header = ["network", "classes", "held out", "images", "top-1", "top-5", "epochs", "minutes"]
    return header, [
        [
            result["model"],
            str(result["classes"]),
            result["split"],
            str(result["n"]),
            percent(result["top1"]),
            percent(result["top5"]),
            str(result["epochs"]),
            f"{result['seconds'] / 60:.1f}",
        ]
    ]


def eval_table(results: Sequence[Mapping[str, Any]]) -> Table:
    """One row a judged layer."""
    header = ["layer", "C", "splits", "train", "test", "accuracy", "mean class accuracy"]
    return header, [
        [
            r["layer"],
            f"{r['C']:g}",
            str(r["splits"]),
            str(r["n_train"]),
            str(r["n_test"]),
            spread(r["accuracy"], r["splits"]),
            spread(r["mean_class_accuracy"], r["splits"]),
        ]
        for r in results
    ]


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Names and values, one a row."""
    return ["", ""], [[name, str(value)] for name, value in facts.items()]
