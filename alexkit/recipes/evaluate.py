"""Feature files judged by linear SVM probes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from alexkit.choices import Protocol, Split
from alexkit.errors import DataError, FileMismatch, UnknownName
from alexkit.events import Chosen, Note, Reporter, Saved, Warned
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.images.source import SPLITS
from alexkit.probes.protocol import describe, evaluate
from alexkit.recipes.inputs import choose_feature_files
from alexkit.recipes.options import EvalOptions
from alexkit.recipes.run_dir import Remembering, RunDir, write_json

EVAL_FILE = "eval.json"


def run(options: EvalOptions, report: Reporter) -> dict[str, Any]:
    """Judges every asked layer of every file and writes ``eval.json`` into a run folder.

    Returns what that file holds: ``{"protocol": {...}, "results": [...]}``.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`.
    """
    report = Remembering(report)
    files = choose_feature_files(options.files, report)
    protocol = _protocol(options.protocol, files, report)
    layers = {file: _layers(file, options.layer) for file in files}
    with RunDir.open("eval", options, report) as folder:
        results = []
        for file in files:
            with FeatureStore.open(file) as store:
                for layer in layers[file]:
                    report(Note(f"{file}: {layer}"))
                    judged = _judge(store, layer, protocol, options, report)
                    results.append({"file": str(file), "layer": layer, **judged})
        told = describe(protocol, norm=options.norm.value, seed=options.seed)
        result = {"protocol": told, "results": results}
        path = folder.path / EVAL_FILE
        write_json(path, result)
        report(Saved("scores", str(path)))
        folder.finish({"file": str(path)})
    return result


def _judge(
    store: FeatureStore,
    layer: str,
    protocol: Literal["holdout", "kfold"],
    options: EvalOptions,
    report: Reporter,
) -> dict[str, Any]:
    bad = int((store.status != Status.DONE).sum())
    if bad and options.strict:
        row, reason = next(iter(store.reasons.items()))
        raise DataError(
            f"{store.path} has {bad} rows without features, the first {store.paths[row]!r}: "
            f"{reason}",
            hint="leave out --strict to judge the others",
        )
    if bad:
        report(Warned(f"{bad} rows without features are left out"))
    rows = store.rows(labelled=True)
    values = store.values(layer, rows)
    if store.views:
        report(Note(f"{layer}: the mean over its {store.views} views is judged"))
        values = values.mean(axis=1, dtype=np.float32)
    return evaluate(
        values.reshape(len(rows), -1),
        store.labels[rows],
        store.classes,
        protocol=protocol,
        splits=store.splits[rows],
        norm=options.norm.value,
        seed=options.seed,
        report=report,
    )


def _layers(file: Path, wanted: tuple[str, ...]) -> list[str]:
    with FeatureStore.open(file) as store:
        if not store.complete:
            raise FileMismatch(
                f"{file} is not complete", hint="finish it with the command that began it"
            )
        for layer in wanted:
            if layer not in store.layers:
                raise UnknownName(f"layer in {file}", layer, store.layers)
        return list(wanted or store.layers)


def _protocol(
    asked: Protocol, files: tuple[Path, ...], report: Reporter
) -> Literal["holdout", "kfold"]:
    """The protocol for all files: as asked, or holdout where each has splits, else kfold."""
    if asked is not Protocol.AUTO:
        return "holdout" if asked is Protocol.HOLDOUT else "kfold"
    if all(map(_has_splits, files)):
        report(Chosen("protocol", "holdout", "the data has its own splits"))
        return "holdout"
    report(Chosen("protocol", "kfold", "the data has no splits of its own"))
    return "kfold"


def _has_splits(file: Path) -> bool:
    with FeatureStore.open(file) as store:
        present = {SPLITS[code] for code in np.unique(store.splits)}
    return Split.TRAIN in present and bool(present & {Split.VAL, Split.TEST})
