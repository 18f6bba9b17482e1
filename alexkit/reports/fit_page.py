"""The page of ``train`` and ``finetune``: curves, confusion, mistakes, classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from alexkit.probes.metrics import confusion
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
)
from alexkit.reports.settings import Ledger, data_blocks, settings_blocks
from alexkit.reports.tables import duration, percent, top1_of

Line = Mapping[str, str]

WORST = 48
"""Mistakes that are shown."""


@dataclass(frozen=True)
class FitFacts:
    """All that the page of a fit is made of.

    Attributes:
        name: of the run.
        record: its ``run.json``.
        metrics: the rows of ``metrics.csv``.
        predictions: the lines of ``predictions.csv``.
        ledger: of bad images.
        thumbnails: path -> data URI.
        in_all: class -> labelled images of the data, where that is known.
        notes: what is missing on the page, and why.
    """

    name: str
    record: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    predictions: Sequence[Line]
    ledger: Ledger = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    in_all: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()


def fit_page(facts: FitFacts) -> Page:
    """The report of a finished or unfinished fit."""
    record = facts.record
    result = record.get("result") or {}
    command = record["command"]
    network = result.get("model", "")
    lead = f"alexkit {command}, {record['state']}" + (f": {network}" if network else "")
    return Page(
        f"{command}: {facts.name}",
        lead,
        _figures(result),
        [
            Section("Curves", _curves(facts.metrics, result)),
            Section("Confusion", _confusion(facts)),
            Section("Worst mistakes", _worst(facts)),
            Section("Classes", _classes(facts)),
            Section(
                "Data", data_blocks(record.get("data") or {}, facts.ledger, _sizes(result))
            ),
            Section("Settings", settings_blocks(record)),
        ],
    )


def worst_mistakes(predictions: Sequence[Line]) -> list[Line]:
    """The wrong ones whose own class was given the least probability, worst first."""
    wrong = [line for line in predictions if line["class"] != line["predicted"]]
    return sorted(wrong, key=lambda line: float(line["p_class"]))[:WORST]


def curve_charts(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> list[Block]:
    """Held-out loss and accuracy of several fits, a line a run."""
    blocks: list[Block] = []
    for title, column, unit in (("Loss", "loss", "nats"), ("Top-1 accuracy", "top1", "")):
        series = [
            Series(name, [row["epoch"] for row in rows], [row[column] for row in rows])
            for name, rows in runs.items()
            if rows
        ]
        if series:
            blocks.append(_chart(title, series, unit, percent_too=column == "top1"))
    return blocks


def _figures(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not result:
        return []
    epochs = f"{result['best_epoch']} of {result['epochs']}" if result["epochs"] else "none"
    frozen = result.get("frozen_part_seconds")
    return [
        ("top-1, held out", top1_of(result)),
        ("top-5, held out", percent(result["top5"])),
        ("images judged", f"{result['n']:,}"),
        ("best epoch", epochs),
        ("time", duration(result["seconds"])),
        *([("of it the frozen part", duration(frozen))] if frozen else []),
    ]


def _curves(metrics: Sequence[Mapping[str, float]], result: Mapping[str, Any]) -> list[Block]:
    if not metrics and result and not result["epochs"]:
        return [Words("The new layer was fitted at once: there are no epochs, and no curves.")]
    if not metrics:
        return [Words("No epoch was finished yet.")]
    epochs = [row["epoch"] for row in metrics]

    def series(name: str, column: str, *, dashed: bool = False) -> Series:
        return Series(name, epochs, [row[column] for row in metrics], dashed=dashed)

    learned = "training (augmented, with dropout)"
    loss = [series("held out", "loss"), series(learned, "train_loss", dashed=True)]
    right = [
        series("held out, top-1", "top1"),
        series(learned + ", top-1", "train_top1", dashed=True),
        series("held out, top-5", "top5"),
    ]
    return [
        _chart("Loss over the epochs", loss, "nats"),
        _chart("Accuracy over the epochs", right, "", percent_too=True),
        _chart("Learning rate over the epochs", [series("learning rate", "lr")], ""),
    ]


def _chart(
    title: str, series: Sequence[Series], unit: str, *, percent_too: bool = False
) -> Chart:
    every = sorted({x for one in series for x in one.x})
    values = [dict(zip(one.x, one.y, strict=True)) for one in series]

    def cell(value: float | None) -> str:
        if value is None:
            return "–"
        return percent(value) if percent_too else f"{value:.4g}"

    rows = [[f"{x:g}", *(cell(known.get(x)) for known in values)] for x in every]
    y_label = "accuracy" if percent_too else title.split(" over")[0].lower()
    y_label += f" ({unit})" if unit else ""
    table = (["epoch", *(one.name for one in series)], rows)
    return Chart(title, "epoch", y_label, series, table, percent=percent_too)


def _confusion(facts: FitFacts) -> list[Block]:
    names = list((facts.record.get("data") or {}).get("classes") or [])
    at = {name: k for k, name in enumerate(names)}
    lines = [
        line for line in facts.predictions if {line["class"], line["predicted"]} <= at.keys()
    ]
    if not lines:
        return []
    true, predicted = (
        np.array([at[line[column]] for line in lines]) for column in ("class", "predicted")
    )
    return confusion_blocks(confusion(true, predicted, len(names)), names)


def _worst(facts: FitFacts) -> list[Block]:
    blocks: list[Block] = [Words(note) for note in facts.notes]
    lines = worst_mistakes(facts.predictions)
    if not facts.predictions:
        return blocks
    if not lines:
        return [*blocks, Words("Every held-out image was right.")]
    images = [
        Thumbnail(
            facts.thumbnails.get(line["path"], ""),
            line["path"],
            (
                f"is {line['class']}: {percent(float(line['p_class']))}",
                f"taken for {line['predicted']}: {percent(float(line['p_predicted']))}",
            ),
        )
        for line in lines
    ]
    told = f"The {len(images)} held-out images whose own class was thought least likely"
    return [*blocks, Thumbnails(images, told)]


def _classes(facts: FitFacts) -> list[Block]:
    if not facts.predictions:
        return []
    total = Counter(line["class"] for line in facts.predictions)
    right = Counter(
        line["class"] for line in facts.predictions if line["class"] == line["predicted"]
    )
    five = Counter(line["class"] for line in facts.predictions if line["top5"] == "1")
    guessed = Counter(line["predicted"] for line in facts.predictions)
    known = bool(facts.in_all)
    header = ["class", *(["images in all"] if known else []), "held out", "right", "top-5"]
    header.append("times predicted")
    rows = []
    for name in (facts.record.get("data") or {}).get("classes") or sorted(total):
        n = total[name]
        row = [name, *([str(facts.in_all.get(name, 0))] if known else []), str(n)]
        row += [percent(right[name] / n if n else None), percent(five[name] / n if n else None)]
        rows.append([*row, str(guessed[name])])
    return [Grid((header, rows), "Accuracy of each class on the held-out images")]


def _sizes(result: Mapping[str, Any]) -> dict[str, Any]:
    names = {"train_images": "training images", "n": "held-out images", "split": "judged by"}
    return {told: result[name] for name, told in names.items() if name in result}
