"""``eval.json`` as people read it: the table of a file, and what is sure of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alexkit.reports.tables import Table, percent

TOP = 5
"""Of so few classes every row is right in the top 5."""


def spread(score: Mapping[str, float] | None, splits: int) -> str:
    """A mean with its standard deviation over splits, where there is more than one."""
    if score is None:
        return percent(None)
    mean = percent(score["mean"])
    return f"{mean[:-2]} ± {100 * score['std']:.1f} %" if splits > 1 else mean


def by_file(results: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The results of each feature file."""
    files: dict[str, list[Mapping[str, Any]]] = {}
    for r in results:
        files.setdefault(r["file"], []).append(r)
    return files


def eval_table(
    results: Sequence[Mapping[str, Any]], published: Sequence[Mapping[str, Any]] = ()
) -> Table:
    """One row a judged layer, or a point of its learning curve; others' figures last.

    Args:
        published: columns, ``{"name": ..., "percent": {layer: [mean, sd or None]}}``.
    """
    several = results[0]["accuracy"] is None
    shots = [r.get("shots") for r in results]
    curve = len(set(shots)) > 1
    measures: list[tuple[str, tuple[str, ...]]] = [
        ("mAP, area", ("map", "area")),
        ("mAP, 11 points", ("map", "eleven_point")),
    ]
    if not several:
        measures = [
            ("accuracy", ("accuracy",)),
            ("mean class", ("mean_class_accuracy",)),
        ]
        if any(len(r["per_class"]) > TOP for r in results):
            measures.append(("top-5", ("top5",)))
    header = ["layer", *(["shots"] if curve else []), "C", "splits", "train", "test"]
    header += [name for name, _ in measures] + [column["name"] for column in published]
    rows = []
    for r in results:
        row = [r["layer"], *([str(r["shots"])] if curve else [])]
        row += ["–" if r["C"] is None else f"{r['C']:g}", str(r["splits"])]
        row += [str(r["n_train"]), str(r["n_test"])]
        for _, keys in measures:
            score = r
            for key in keys:
                score = score[key]
            row.append(spread(score, r["splits"]))
        rows.append(row + [_figure(column["percent"].get(r["layer"])) for column in published])
    return header, rows


def _figure(known: Sequence[float | None] | None) -> str:
    if known is None or known[0] is None:
        return "–"
    return f"{known[0]:.1f}" + (f" ± {known[1]:.1f} %" if known[1] is not None else " %")


def interval_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a layer with a single split: between what its score lies."""
    return [
        f"{r['layer']}: mean class accuracy between {percent(low)} and {percent(high)}"
        " (95 %, test rows drawn again)"
        for r in results
        if "interval" in r
        for low, high in [r["interval"]["mean_class_accuracy"]]
    ]


def gap_lines(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line: how far the objectives are above their minima at most, where that is known."""
    worst = max(r["objective_gap"] for r in results)
    if not worst:
        return []
    return [f"objectives are at most {worst:.1e} of themselves above their minima (certified)"]


def comparison_lines(comparisons: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a pair: which had rows right that the other had not."""
    return [
        f"{c['first']} against {c['second']}: right alone {c['first_only']} and "
        f"{c['second_only']} of {c['rows']}, p = {c['p']:.2g} (McNemar, exact)"
        for c in comparisons
    ]
