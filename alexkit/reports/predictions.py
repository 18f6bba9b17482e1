"""What networks say of images, as people and other programs read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexkit.reports.tables import Table, facts_table, percent

SHOWN_CONFUSIONS = 5
SHOWN_CLASSES = 20


def _value(entry: Mapping[str, Any]) -> str:
    """A probability as percent, a probe's score as it is."""
    if "probability" in entry:
        return percent(entry["probability"])
    return f"{entry['score']:.3f}"


def prediction_table(result: Mapping[str, Any]) -> Table:
    """One row an image: the likeliest class, then the others in one cell."""
    several = any(len(one["top"]) > 1 for one in result["predictions"])
    header = ["image", "class", result["measure"], *(["then"] if several else [])]
    rows = []
    for one in result["predictions"]:
        if one["error"]:
            row = [one["path"], "–", "–", one["error"]]
        else:
            first, *others = one["top"]
            then = ", ".join(f"{entry['class']} {_value(entry)}" for entry in others)
            row = [one["path"], first["class"], _value(first), then]
        rows.append(row[: len(header)])
    return header, rows


def prediction_rows(result: Mapping[str, Any]) -> Table:
    """The same for programs: every class and value in a column of its own, and the error."""
    measure = result["measure"]
    most = max((len(one["top"]) for one in result["predictions"]), default=0)
    header = ["path", "class", measure]
    header += [f"{name}_{at}" for at in range(2, most + 1) for name in ("class", measure)]
    rows = []
    for one in result["predictions"]:
        cells = [cell for e in one["top"] for cell in (e["class"], repr(e[measure]))]
        cells += [""] * (2 * most - len(cells))
        rows.append([one["path"], *cells, one["error"] or ""])
    return [*header, "error"], rows


def judged_line(result: Mapping[str, Any]) -> str | None:
    """How many of the images in folders called like a class were taken for it."""
    if not result["judged"]:
        return None
    return (
        f"{result['judged']:,} images are in folders called like a class: "
        f"{percent(result['top1'])} are predicted to be of it"
    )


def validation_table(result: Mapping[str, Any]) -> Table:
    """The scores, one a row."""
    facts = {
        "images": f"{result['n']:,} ({result['split'] or 'no split'})",
        "classes": f"{result['classes']:,}",
        "views": result["views"],
        "top-1": f"{percent(result['top1'])} right, {percent(1 - result['top1'])} error",
        "top-5": f"{percent(result['top5'])} right, {percent(1 - result['top5'])} error",
        "mean class accuracy": percent(result["mean_class_accuracy"]),
        "cross-entropy": f"{result['loss']:.4f} nats",
        "calibration error": (
            f"{percent(result['calibration']['error'])} "
            f"({len(result['calibration']['bins'])} bins of equal width)"
        ),
    }
    if result["bad"]:
        facts["could not be read"] = f"{result['bad']:,}"
    if len(result["networks"]) > 1:
        for name, alone in result["networks"].items():
            told = f"{percent(alone['top1'])} top-1, {percent(alone['top5'])} top-5 alone"
            facts[name] = told
    return facts_table(facts)


def confused_lines(confused: Sequence[Mapping[str, Any]]) -> list[str]:
    """The pairs of classes that are mistaken most often."""
    return [
        f"{one['class']} taken for {one['taken_for']}: {one['images']:,} of {one['of']:,}"
        for one in confused[:SHOWN_CONFUSIONS]
    ]
