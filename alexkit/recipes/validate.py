"""Trained networks judged on labelled images: alone, with several views, as an ensemble."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import FileMismatch
from alexkit.events import Reporter, Saved
from alexkit.images.draws import Rows
from alexkit.images.source import ImageSource
from alexkit.images.views import Views
from alexkit.probes.metrics import (
    calibration,
    confusion,
    mean_class_accuracy,
    most_confused,
    per_class,
    predictions,
    top_k,
)
from alexkit.recipes.classes import Labels, match_classes
from alexkit.recipes.classify import Classifier, Scores, choose_classifier, classify, gather
from alexkit.recipes.devices import one_device
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import choose_data, data_record, open_data, tell_pack
from alexkit.recipes.judged_rows import Task, choose_rows
from alexkit.recipes.layers import Stored
from alexkit.recipes.ledger import LEDGER, Ledger, none_usable
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.predictions import COLUMNS, PREDICTIONS
from alexkit.recipes.run_dir import Remembering, RunDir, write_json
from alexkit.recipes.using import ValidateOptions
from alexkit.reports.tables import save_csv

VALIDATE_FILE = "validate.json"
CONFUSION_FILE = "confusion.csv"
MOST_CONFUSED = 50
"""Pairs of classes that are listed."""


def run(options: ValidateOptions, report: Reporter) -> dict[str, Any]:
    """Judges the networks of ``options.weights`` and writes ``validate.json`` and
    ``confusion.csv`` into a run folder.

    Each image's probabilities are the mean over its views and over the networks, as the
    paper's ensembles are made (§6: "averaging the predictions").

    Returns:
        What ``validate.json`` holds: ``top1``, ``top5``, ``split`` and ``n``, as every command
        tells accuracies; ``loss`` (nats), ``mean_class_accuracy``, ``calibration``,
        ``per_class``, ``confused``, ``networks``: the scores of each alone.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`.
    """
    began = time.monotonic()
    report = Remembering(report)
    views = Views.parse(options.views)
    data = choose_data(options.data, "alexkit validate mydata/", report)
    device = one_device(options.device, report)
    source = open_data(data, report)
    chosen = [
        choose_classifier(options.model, weights, options.class_map, options.seed, report)
        for weights in options.weights
    ]
    sources = [one.backbone.source for one in chosen]
    task = choose_rows(source, options.split, sources, report)
    orders, labels = _matched(chosen, task, report)
    for one in chosen:
        _settle(one, options, source, report)
    jobs = []
    for one in chosen:
        stored = Stored.one_layer(one.backbone, one.layer, views)
        jobs.append(Job.of(source, one.backbone, stored, device, options, report))
    with RunDir.open("validate", options, report) as folder:
        folder.note("data", data_record(source) | {"path": os.path.abspath(data)})
        ledger = Ledger(folder.path / LEDGER, strict=options.strict, report=report)
        total = np.zeros((len(task.rows), len(chosen[0].outputs.names)))
        there, alone = np.ones(len(task.rows), bool), {}
        for job, order in zip(jobs, orders, strict=True):
            scored, stage = classify(job, task.rows, ledger), f"validate {job.backbone.name}"
            scores, done = gather(scored, task.rows, total.shape[1], stage, report)
            there &= done
            alone[job.backbone.source] = _tops(scores[done][:, order], labels[done])
            total += scores[:, order]
        ledger.close()
        if not there.any():
            raise none_usable(len(task.rows), source.root)
        rows, labels, names = task.rows[there], labels[there], chosen[0].outputs.names
        scores = total[there] / len(jobs)
        result = _result(names, scores, labels, task.split) | {
            "networks": alone,
            "views": str(views),
            "bad": ledger.bad,
            "seconds": time.monotonic() - began,
            "run": str(folder.path),
        }
        write_json(folder.path / VALIDATE_FILE, result)
        _write_tables(folder.path, source, rows, names, scores, labels)
        report(Saved("scores", str(folder.path / VALIDATE_FILE)))
        folder.finish({name: result[name] for name in ("top1", "top5", "split", "n")})
    return result


def _matched(
    chosen: Sequence[Classifier], task: Task, report: Reporter
) -> tuple[list[Labels], Labels]:
    """For each network its outputs in the order of the first one's; and (n) the first
    network's output that each row should be.

    Raises:
        FileMismatch: a class of the data is no network's, or they know different classes.
    """
    every = [
        match_classes(one.outputs, task.classes, one.backbone.source, report) for one in chosen
    ]
    first = chosen[0].outputs.names
    orders = []
    for one, at in zip(chosen, every, strict=True):
        names = one.outputs.names
        if set(names) == set(first):
            index = {name: place for place, name in enumerate(names)}
            orders.append(np.array([index[name] for name in first]))
        elif len(names) == len(first) == len(task.classes):
            order = np.empty(len(first), np.int64)
            order[every[0]] = at
            orders.append(order)
        else:
            raise FileMismatch(
                f"{one.backbone.source} and {chosen[0].backbone.source} do not know the same "
                "classes",
                hint="an ensemble is of networks for the same classes, matched by name",
            )
    return orders, every[0][task.labels]


def _settle(
    one: Classifier, options: ValidateOptions, source: ImageSource, report: Reporter
) -> None:
    """The preprocessing of the weights, but for what is asked."""
    backbone = one.backbone
    made = settle_exif(backbone.preprocess, options.exif, source, report)
    if options.resize is not None:
        made = replace(made, resize=options.resize)
    if options.crop is not None:
        made = replace(made, crop=options.crop)
        backbone.net.input_side = options.crop
    backbone.preprocess = made
    tell_pack(source, made, report)


def _tops(scores: Scores, labels: Labels) -> dict[str, float]:
    if not len(labels):
        return {"top1": 0.0, "top5": 0.0}
    return {"top1": top_k(scores, labels, 1), "top5": top_k(scores, labels, 5)}


def _result(names: Sequence[str], scores: Scores, labels: Labels, split: str) -> dict[str, Any]:
    """What :func:`run` tells of (m, K) scores and (m) the output that each row should be."""
    predicted = predictions(scores)
    table = confusion(labels, predicted, len(names))
    own = scores[np.arange(len(labels)), labels]
    error, bins = calibration(scores.max(axis=1), predicted == labels)
    shares, present = per_class(table), np.unique(labels).tolist()
    return {
        **_tops(scores, labels),
        "split": split,
        "n": len(labels),
        "classes": len(present),
        "loss": float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()),
        "mean_class_accuracy": mean_class_accuracy(table),
        "calibration": {"error": error, "bins": bins},
        "per_class": {names[at]: float(shares[at]) for at in present},
        "confused": [
            {
                "class": names[true],
                "taken_for": names[taken],
                "images": n,
                "of": int(table[true].sum()),
            }
            for true, taken, n in most_confused(table, MOST_CONFUSED)
        ],
    }


def _write_tables(
    folder: Path,
    source: ImageSource,
    rows: Rows,
    names: Sequence[str],
    scores: Scores,
    labels: Labels,
) -> None:
    """``confusion.csv`` and ``predictions.csv``; arguments as in :func:`_result`."""
    predicted = predictions(scores)
    table = confusion(labels, predicted, len(names))
    down, across = np.unique(labels), np.unique(predicted)
    header = ["class", *(names[at] for at in across)]
    lines = [[names[at], *table[at, across].tolist()] for at in down]
    save_csv(folder / CONFUSION_FILE, header, lines)
    top5 = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    told = [
        [
            source.record(row).path,
            names[label],
            names[best],
            f"{p[label]:.6g}",
            f"{p[best]:.6g}",
            int(label in five),
        ]
        for row, label, best, p, five in zip(
            rows.tolist(), labels, predicted, scores, top5, strict=True
        )
    ]
    save_csv(folder / PREDICTIONS, COLUMNS, told)
