"""The page of ``eval``: the layer curve, the learning curve, classes, hardest images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexkit.reports.confusion import confusion_blocks
from alexkit.reports.page import (
    Block,
    Chart,
    Grid,
    Page,
    Section,
    Series,
    Thumbnail,
    Thumbnails,
    Words,
    facts,
)
from alexkit.reports.scores import by_file, comparison_lines, eval_table, interval_lines, spread
from alexkit.reports.settings import settings_blocks
from alexkit.reports.tables import percent

Result = Mapping[str, Any]
Line = Mapping[str, str]

ORDER = (
    "conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5", "pool5",
    "gap", "fc6", "fc7", "fc8", "prob",
)  # fmt: skip
"""From the image up; a layer of another network keeps its place in the file."""
HARDEST = 48


@dataclass(frozen=True)
class EvalFacts:
    """All that the page of an ``eval`` is made of.

    Attributes:
        name: of the run.
        record: its ``run.json``.
        told: its ``eval.json``.
        predictions: the lines of ``predictions.csv``.
        thumbnails: path -> data URI.
        notes: what is missing on the page, and why.
    """

    name: str
    record: Mapping[str, Any]
    told: Mapping[str, Any]
    predictions: Sequence[Line] = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def eval_page(given: EvalFacts) -> Page:
    """The report of an ``eval``."""
    results = given.told["results"]
    best = best_of(results)
    measure, score = measured(best)
    figures = [
        (f"{measure}, {best['layer']}", spread(score, best["splits"])),
        ("train / test rows", f"{best['n_train']:,} / {best['n_test']:,}"),
        ("protocol", given.told["protocol"]["name"]),
    ]
    return Page(
        f"eval: {given.name}",
        f"alexkit eval, {given.record['state']}: {len(results)} results",
        figures,
        [
            Section("Layers", _layers(given.told)),
            Section("Learning curve", shots_charts({"": results})),
            Section("Confusion", _confusion(best)),
            Section("Classes", _classes(results)),
            Section("Hardest images", _hardest(given)),
            Section("Choice of C", _choice(results)),
            Section("Protocol", _protocol(given.told, results)),
            Section("Settings", settings_blocks(given.record)),
        ],
    )


def best_of(results: Sequence[Result]) -> Result:
    """The result with the highest score, the earliest of equals."""
    return max(results, key=lambda r: measured(r)[1]["mean"])


def measured(result: Result) -> tuple[str, Mapping[str, float]]:
    """What a result is judged by, in words, and the score."""
    if result["mean_class_accuracy"] is None:
        return "mean average precision", result["map"]["area"]
    return "mean class accuracy", result["mean_class_accuracy"]


def in_order(layers: Sequence[str]) -> list[str]:
    """Layers from the image up."""
    places = {name: place for place, name in enumerate(ORDER)}
    names = dict.fromkeys(layers)
    return sorted(names, key=lambda name: places.get(name.split(":")[0], len(ORDER)))


def hardest(predictions: Sequence[Line]) -> list[Line]:
    """The rows with the least margin, hardest first."""
    return sorted(predictions, key=lambda line: float(line["margin"]))[:HARDEST]


def layer_chart(results: Mapping[str, Sequence[Result]]) -> Chart | None:
    """The layer curve, a line a file or run; None for a single layer.

    Of a learning curve, the point with the most shots is taken.
    """
    layers = in_order([r["layer"] for some in results.values() for r in some])
    if len(layers) < 2:
        return None
    lines = {name: {r["layer"]: r for r in some} for name, some in results.items()}
    series, rows = _drawn(lines, {layer: place for place, layer in enumerate(layers)})
    return Chart(
        "Layer curve",
        "layer",
        measured(next(iter(results.values()))[0])[0],
        series,
        (["layer", *results], rows),
        ticks=layers,
        percent=True,
    )


def shots_charts(results: Mapping[str, Sequence[Result]]) -> list[Block]:
    """The learning curve, a line a layer of each run; nothing where shots do not vary."""
    lines: dict[str, dict[int, Result]] = {}
    for run, some in results.items():
        for r in some:
            if r.get("shots"):
                name = f"{run} {r['layer']}".strip()
                lines.setdefault(name, {})[r["shots"]] = r
    every = sorted({shots for line in lines.values() for shots in line})
    if len(every) < 2:
        return []
    series, rows = _drawn(lines, {shots: shots for shots in every})
    title = "Accuracy over the training images of a class; the band is ± a standard deviation"
    x_label, table = "training images a class", (["images", *lines], rows)
    return [Chart(title, x_label, "accuracy", series, table, percent=True, log=True)]


def _drawn(
    lines: Mapping[str, Mapping[Any, Result]], places: Mapping[Any, float]
) -> tuple[list[Series], list[list[str]]]:
    """The lines of a chart, and its table: a row a place, a column a line.

    Args:
        lines: name -> what was judged -> the result.
        places: what was judged -> its x, ascending.
    """
    series = []
    for name, line in lines.items():
        scores = {
            x: measured(line[judged])[1] for judged, x in places.items() if judged in line
        }
        means = [score["mean"] for score in scores.values()]
        deviations = [score["std"] for score in scores.values()]
        series.append(Series(name, list(scores), means, deviations if any(deviations) else ()))
    rows = [
        [str(judged), *(_told(line.get(judged)) for line in lines.values())]
        for judged in places
    ]
    return series, rows


def _told(result: Result | None) -> str:
    return "–" if result is None else spread(measured(result)[1], result["splits"])


def _layers(told: Mapping[str, Any]) -> list[Block]:
    results, published = told["results"], told["protocol"]["published"]
    files = by_file(results)
    chart = layer_chart(files)
    blocks: list[Block] = [chart] if chart else []
    for file, some in files.items():
        blocks.append(Grid(eval_table(some, published), file))
    if published:
        blocks.append(Words("Columns with a name and a year are others' published figures."))
    blocks += [Words(line) for line in interval_lines(results)]
    return blocks + [Words(line) for line in comparison_lines(told["comparisons"])]


def _confusion(best: Result) -> list[Block]:
    if "confusion" not in best:
        return []
    counts = np.array(best["confusion"], np.int64)
    splits = f", {best['splits']} splits together" if best["splits"] > 1 else ""
    told = Words(f"Of the best layer, {best['layer']}{splits}.")
    return [told, *confusion_blocks(counts, list(best["per_class"]))]


def _classes(results: Sequence[Result]) -> list[Block]:
    last = {(r["file"], r["layer"]): r for r in results}
    several = len({file for file, _ in last}) > 1
    order = in_order([layer for _, layer in last])
    shown = sorted(last.items(), key=lambda one: (one[0][0], order.index(one[0][1])))
    header = ["class", *(f"{file} {layer}" if several else layer for (file, layer), _ in shown)]
    rows = [
        [name, *(percent(r["per_class"].get(name)) for _, r in shown)]
        for name in shown[0][1]["per_class"]
    ]
    several_classes = results[0]["mean_class_accuracy"] is None
    what = "Average precision" if several_classes else "Accuracy"
    return [Grid((header, rows), f"{what} of each class on test rows")]


def _hardest(given: EvalFacts) -> list[Block]:
    if not given.predictions:
        return [Words("Rows that may have several classes are not ranked.")]
    images = []
    for line in hardest(given.predictions):
        wrong = line["class"] != line["predicted"]
        taken = f"taken for {line['predicted']}" if wrong else "just right"
        count = f"right {line['right']} of {line['tested']}, margin {float(line['margin']):.3g}"
        source = given.thumbnails.get(line["path"], "")
        images.append(Thumbnail(source, line["path"], (f"is {line['class']}", taken, count)))
    layer = (given.told.get("predictions") or {}).get("layer", "")
    told = (
        f"The {len(images)} test images with the least margin in {layer}: the score of their "
        "own class less the best score of another"
    )
    return [*(Words(note) for note in given.notes), Thumbnails(images, told)]


def _choice(results: Sequence[Result]) -> list[Block]:
    last = {f"{r['file']} {r['layer']}": r for r in results}
    short = len({r["file"] for r in results}) == 1
    series, cells = [], []
    for name, r in last.items():
        tried = [c for c in r["cv"] if np.isfinite(c["score"]) and c["C"] > 0]
        if len(tried) > 1:
            shown = r["layer"] if short else name
            c, score = [t["C"] for t in tried], [t["score"] for t in tried]
            series.append(Series(shown, c, score))
            cells += [
                [shown, f"{t['C']:g}", percent(t["score"]), str(t["chosen"])] for t in tried
            ]
    if not series:
        return []
    title = "Score inside the training rows over C"
    table = (["layer", "C", "score", "times chosen"], cells)
    return [Chart(title, "C", "score", series, table, percent=True, log=True)]


def _protocol(told: Mapping[str, Any], results: Sequence[Result]) -> list[Block]:
    protocol = {k: v for k, v in told["protocol"].items() if k != "published" and v is not None}
    rows = [
        [
            r["layer"],
            str(r["leaks"]["identical"]),
            str(r["leaks"]["near"]),
            f"{r['objective_gap']:.1e}",
            f"{r['seconds']:.1f}",
        ]
        for r in results
        if "leaks" in r
    ]
    header = ["layer", "equal test rows", "near test rows", "duality gap", "seconds"]
    caption = "Test rows that a training row gives away, and how exact the fits are"
    return [
        facts(protocol, "How rows were divided and C was chosen"),
        Grid((header, rows), caption),
    ]
