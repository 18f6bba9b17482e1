"""What ``eval`` was asked for, checked before anything is computed, as tasks for the probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alexkit.choices import Protocol, Split
from alexkit.errors import DataError, UsageError
from alexkit.events import Chosen, Note, Reporter, Warned
from alexkit.features.store import FeatureStore
from alexkit.images.source import SPLITS
from alexkit.probes.choice import DECADES
from alexkit.probes.norms import GOYAL_POOLS, Norm
from alexkit.probes.protocol import Task, single_task
from alexkit.probes.protocols import RAZAVIAN_SEVERAL_C, ProtocolRecord, protocol_of
from alexkit.probes.splits import Division, divide_several
from alexkit.recipes.eval_rows import (
    EvalRows,
    align,
    labelled,
    read_splits,
    with_labels,
)
from alexkit.recipes.options import EvalOptions

HELD = {
    "folds": "3 folds",
    "own": "the val rows, or else 3 folds,",
    "sixth": "a sixth",
    "val": "the val rows, or else a tenth,",
}


@dataclass(frozen=True)
class Plan:
    """What is done on every layer of every file.

    Attributes:
        tasks: one, or one a point of the learning curve; ascending shots.
    """

    rows: EvalRows
    record: ProtocolRecord
    tasks: Sequence[Task]


def plan(options: EvalOptions, stores: Sequence[FeatureStore], report: Reporter) -> Plan:
    """Aligns the files' rows, settles the protocol and divides the rows.

    Raises:
        UsageError: options that do not go together.
        DataError: the rows or labels do not allow the protocol.
        FileMismatch: the files, or a split file, are of other rows.
    """
    curve = _curve(options)
    record = _record(options, stores, curve, report)
    rows = align(stores, strict=options.strict, report=report)
    if options.labels is not None:
        rows = with_labels(rows, options.labels, report)
    else:
        rows = labelled(rows, report)
    given: Sequence[Division] = ()
    if options.splits is not None:
        given = read_splits(options.splits, rows, report)
    if rows.signs is not None:
        return Plan(rows, record, [_several_task(rows, record, given, options.seed)])
    assert rows.labels is not None
    tasks = []
    for shots in curve or (record.shots,):
        task = single_task(
            rows.labels,
            rows.classes,
            replace(record, shots=shots),
            splits=rows.splits,
            seed=options.seed,
            divisions=given,
            reserve=max(curve, default=0),
        )
        tasks.append(replace(task, name=lambda row: rows.paths[row]))
    parts = tasks[0].divisions
    if record.parts == "holdout" and not given and not rows.splits.any():
        held = f"{parts[0].test.size} rows"
        report(Chosen("held out", held, f"a fifth of each class, seed {options.seed}"))
    return Plan(rows, record, tasks)


def _curve(options: EvalOptions) -> tuple[int, ...]:
    if options.curve is None:
        return ()
    try:
        shots = sorted({int(word) for word in options.curve.split(",")})
    except ValueError:
        shots = []
    if not shots or shots[0] < 1:
        raise UsageError(
            f"--curve {options.curve} is no list of numbers", hint="type e.g. --curve 1,5,10"
        )
    for name in ("shots", "splits", "save", "save_splits"):
        if getattr(options, name) is not None:
            told = name.replace("_", "-")
            raise UsageError(f"--curve and --{told} exclude each other", hint="use one of them")
    return tuple(shots)


def _grid(text: str) -> tuple[float, ...]:
    """The C of ``--C``, each once, ascending."""
    try:
        grid = sorted({float(word) for word in text.split(",")})
    except ValueError:
        grid = []
    if not grid or not all(0 < c < float("inf") for c in grid):
        raise UsageError(
            f"--C {text} is no list of positive numbers", hint="type e.g. --C 0.01,0.1,1"
        )
    return tuple(grid)


def _record(
    options: EvalOptions,
    stores: Sequence[FeatureStore],
    curve: tuple[int, ...],
    report: Reporter,
) -> ProtocolRecord:
    """The protocol's record with what was asked otherwise."""
    few = bool(curve) or options.shots is not None or options.repeats is not None
    record = protocol_of(_name(options, stores, few, report))
    if few and record.parts != "few-shot":
        raise UsageError(
            f"--protocol {record.name} has no shots", hint="use --protocol few-shot"
        )
    several = options.labels is not None
    if several and not record.several:
        raise UsageError(
            f"--protocol {record.name} takes one class a row, --labels gives several",
            hint="use --protocol voc07, goyal or razavian",
        )
    if record.name == "voc07" and not several:
        raise UsageError(
            "--protocol voc07 needs --labels F.csv", hint="see alexkit eval --help"
        )
    asked: dict[str, Any] = {
        "probe": options.probe.value if options.probe else None,
        "norm": options.norm,
        "shots": options.shots,
        "repeats": options.repeats,
    }
    changed = {name: value for name, value in asked.items() if value is not None}
    record = replace(record, **changed)
    if options.C is not None:
        record = replace(record, grid=_grid(options.C), halving=False)
    elif several and record.name == "razavian":
        record = replace(record, grid=(RAZAVIAN_SEVERAL_C,))
    Norm.parse(record.norm)
    if record.probe != "svm" and record.per_class:
        raise UsageError(
            f"--protocol {record.name} is of --probe svm", hint="leave out --probe"
        )
    if record.probe == "knn" and options.C is not None:
        raise UsageError("a knn probe has no C", hint="leave out --C")
    if record.probe == "knn" and (several or options.save):
        raise UsageError("a knn probe has no weights", hint="use another --probe")
    return record


def _name(
    options: EvalOptions, stores: Sequence[FeatureStore], few: bool, report: Reporter
) -> str:
    """As asked, or by the options; holdout where each file has splits, else kfold."""
    if options.protocol is not Protocol.AUTO:
        return str(options.protocol.value)
    if options.labels is not None:
        name, rule = "voc07", "--labels may give several classes a row"
    elif few:
        name, rule = "few-shot", "shots were asked for"
    elif all(map(_has_splits, stores)):
        name, rule = "holdout", "the data has its own splits"
    else:
        name, rule = "kfold", "the data has no splits of its own"
    report(Chosen("protocol", name, rule))
    return name


def _has_splits(store: FeatureStore) -> bool:
    present = {SPLITS[code] for code in np.unique(store.splits)}
    return Split.TRAIN in present and bool(present & {Split.VAL, Split.TEST})


def _several_task(
    rows: EvalRows, record: ProtocolRecord, given: Sequence[Division], seed: int
) -> Task:
    signs = rows.signs
    assert signs is not None
    parts = given or divide_several(len(rows.paths), rows.splits, seed=seed)
    for part in parts:
        trained = (signs[part.train] > 0).any(axis=0)
        unseen = np.flatnonzero((signs[part.test] > 0).any(axis=0) & ~trained)
        if unseen.size:
            raise DataError(
                f"class {rows.classes[unseen[0]]!r} is to be tested but has no training rows",
                hint="give it training images, or leave it out",
            )
        if not trained.any() or not (signs[part.test] > 0).any():
            raise DataError(
                "no row of the training part, or of the test part, has a class",
                hint="look at the labels and the splits",
            )
    return Task(
        record, rows.classes, None, signs, parts, seed, name=lambda row: rows.paths[row]
    )


def is_pooled(
    store: FeatureStore, layer: str, record: ProtocolRecord, report: Reporter
) -> bool:
    """Whether the protocol average-pools a layer before anything else; said where it would,
    but the file has no maps of it that are large enough, or has pooled them already."""
    if not record.pooled or layer not in GOYAL_POOLS:
        return False
    kernel, stride = GOYAL_POOLS[layer]
    shape = store.layers[layer][bool(store.views) :]
    before = store.provenance.get("pool") or "none"
    if before == "none" and len(shape) == 3 and min(shape[1:]) >= kernel:
        report(Note(f"{layer} is average-pooled, kernel {kernel}, stride {stride}"))
        return True
    told = f"its rows are {' × '.join(map(str, shape))}"
    told += f", extracted with --pool {before}" if before != "none" else ""
    tell = Note if before == "9k" else Warned  # that is what the protocol would have made
    report(tell(f"{layer} is not average-pooled by the protocol: {told}"))
    return False


def describe(plan: Plan, options: EvalOptions) -> dict[str, Any]:
    """The protocol in words and numbers, as ``eval.json`` stores it."""
    record = plan.record
    grid: str | list[float] = [float(f"{c:.6g}") for c in sorted(record.grid)]
    if not record.grid:
        grid = (
            f"10^k, k in {list(DECADES)}, in units of 1 / mean squared row length of the "
            "training rows, rounded to a power of ten"
        )
    by = "mean average precision" if record.metric == "map" else record.metric.replace("_", " ")
    chosen = f"{by} on {HELD[record.inside]} of the training rows; then all are fitted"
    few = record.parts == "few-shot" and options.splits is None
    return {
        "name": record.name,
        "source": record.source,
        "parts": str(options.splits) if options.splits else record.parts,
        "probe": record.probe,
        "norm": record.norm,
        "shots": [task.record.shots for task in plan.tasks] if few else None,
        "repeats": record.repeats if few else None,
        "test_rows_a_class_at_most": record.test_most or None,
        "C": grid,
        "C_chosen_by": "fixed" if len(record.grid) == 1 else chosen,
        "C_per_class": record.per_class,
        "class_weight": record.positive,
        "metric": record.metric,
        "spread": "standard deviation over splits (n - 1); 0 for one split",
        "seed": options.seed,
        "published": published(plan, options),
    }


def published(plan: Plan, options: EvalOptions) -> list[dict[str, Any]]:
    """Columns of others' figures, where nothing of the protocol was changed and the data has
    as many classes as theirs."""
    untouched = all(
        getattr(options, name) is None
        for name in ("norm", "C", "shots", "repeats", "curve", "splits")
    )
    present = (
        len(plan.rows.classes) if plan.rows.labels is None else np.unique(plan.rows.labels).size
    )
    return [
        {"name": column.name, "percent": {k: list(v) for k, v in column.percent.items()}}
        for column in plan.record.published
        if untouched and present in column.classes and plan.record.probe == column.probe
    ]
