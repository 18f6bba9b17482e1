"""Feature files judged by probes under a named protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from alexkit.errors import DataError, OutOfMemory, UsageError
from alexkit.events import Chosen, Note, Reporter, Saved
from alexkit.features.store import FeatureStore
from alexkit.probes.compare import mcnemar
from alexkit.probes.kept import Kept
from alexkit.probes.norms import Norm
from alexkit.probes.outcomes import Outcomes, outcomes
from alexkit.probes.protocol import LayerResult, Task, judge_layer
from alexkit.probes.rows import Features
from alexkit.probes.saved import probe_of, save_probe
from alexkit.probes.scores import summary
from alexkit.probes.solver import GRAM_ROWS
from alexkit.recipes.eval_kept import Judged, judged_before, keep_judged, kept_in
from alexkit.recipes.eval_plan import Plan, describe, is_pooled, plan
from alexkit.recipes.eval_rows import EvalRows, LayerRows, free_memory, write_splits
from alexkit.recipes.inputs import choose_feature_files
from alexkit.recipes.options import EvalOptions
from alexkit.recipes.out_file import check_out
from alexkit.recipes.predictions import (
    PREDICTIONS,
    PROBE_COLUMNS,
    probe_lines,
)
from alexkit.recipes.reporting import report_at_the_end
from alexkit.recipes.run_dir import Remembering, RunDir, write_json
from alexkit.reports.tables import save_csv
from alexkit.whole_file import writing

EVAL_FILE = "eval.json"
HELD = 1 << 30
"""Bytes of a layer of many rows that are held in memory: beside what the solver keeps of every
row, 100,000 rows of 4,096 in 1,000 classes then take less than 4 GB in all."""


def run(options: EvalOptions, report: Reporter) -> dict[str, Any]:
    """Judges every asked layer of every file and writes ``eval.json`` into a run folder.

    Returns what that file holds: ``protocol``, ``results`` and ``comparisons``.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`.
    """
    report = Remembering(report)
    files = choose_feature_files(options.files, report)
    with ExitStack() as stack:
        stores = [stack.enter_context(FeatureStore.open(file)) for file in files]
        layers = [store.named(options.layer) for store in stores]
        planned = plan(options, stores, report)
        _check_outputs(options, sum(map(len, layers)))
        with RunDir.open("eval", options, report) as folder:
            kept = kept_in(folder.path / "state", files, options)
            judged = list(_judge(stores, layers, planned, options, kept, folder, report))
            result = {
                "protocol": describe(planned, options),
                "results": [one.result for one in judged],
                "comparisons": _compare(judged),
                "predictions": _write_hardest(judged, planned.rows, folder.path / PREDICTIONS),
            }
            if options.save_splits is not None:
                told = write_splits(planned.tasks[0].divisions, planned.rows.paths)
                folder.writes(options.save_splits)
                with writing(options.save_splits, option="--save-splits"):
                    write_json(options.save_splits, told)
                report(Saved("splits", str(options.save_splits)))
            path = folder.path / EVAL_FILE
            write_json(path, result)
            kept.drop()
            report(Saved("scores", str(path)))
            folder.finish({"file": str(path)})
            report_at_the_end(folder.path, report)
    return result


def _judge(
    stores: Sequence[FeatureStore],
    layers: Sequence[Sequence[str]],
    planned: Plan,
    options: EvalOptions,
    kept: Kept,
    folder: RunDir,
    report: Reporter,
) -> Iterator[Judged]:
    for store, names, places in zip(stores, layers, planned.rows.places, strict=True):
        for layer in names:
            report(Note(f"{store.path}: {layer}"))
            known = [
                kept.within(f"{stores.index(store)}-{names.index(layer)}-{number}")
                for number in range(len(planned.tasks))
            ]
            before = [judged_before(one) for one in known]
            if options.save is None and all(before):
                report(Note(f"{layer} was judged before the interruption"))
                yield from filter(None, before)
                continue
            pool = is_pooled(store, layer, planned.record, report)
            rows = LayerRows(store, layer, places, pool=pool)
            if store.views:
                report(Note(f"{layer} is the mean over the views of an image"))
            x = _in_memory(rows, planned.record.norm, planned.record.probe, report)
            for task, place in zip(planned.tasks, known, strict=True):
                found = judge_layer(x, task, report, place.within("split"))
                told: dict[str, Any] = {"file": str(store.path), "layer": layer}
                if task.record.parts == "few-shot" and options.splits is None:
                    told["shots"] = task.record.shots
                scores = summary(found)
                if options.save is not None:
                    folder.writes(options.save)
                    _save(options, found, x, scores["C"], rows)
                    report(Saved("probe", str(options.save)))
                name = layer if len(stores) == 1 else f"{store.path} {layer}"
                name = name if task is planned.tasks[-1] else ""
                each = outcomes(found.splits, x.shape[0])
                yield keep_judged(place, Judged(name, told | scores, each))
                place.within("split").drop()


def _in_memory(rows: LayerRows, norm: str, probe: str, report: Reporter) -> Features:
    """The rows as an array where they take at most half of the free memory, and, of many rows
    that are read in order again and again, at most :data:`HELD`.

    Raises:
        OutOfMemory: they take more, and what is asked for needs them all at once.
    """
    free, (n, d) = free_memory(), rows.shape
    kind, nbytes = Norm.parse(norm), n * d * 4
    in_blocks = probe == "svm" and kind.kind in ("none", "l2", "power")
    fits = not free or nbytes <= free // 2
    if fits and (nbytes <= HELD or n <= GRAM_ROWS or not in_blocks):
        return rows[:]
    told = f"{nbytes / 1e9:.1f} GB"
    report(Chosen("rows", "read from the file in blocks", f"{told} would be held in memory"))
    if in_blocks or (kind.turns and n <= min(d, GRAM_ROWS)):
        return rows
    raise OutOfMemory(
        f"{probe} with --norm {norm} needs {n * d * 8 / 1e9:.1f} GB, and {free / 1e9:.1f} GB "
        "are free",
        hint="use --probe svm with --norm none or l2, which read the file in blocks",
    )


def _comparable(judged: Sequence[Judged]) -> list[Judged]:
    return [one for one in judged if one.name and one.outcomes is not None]


def _best(judged: Sequence[Judged]) -> tuple[Judged, Outcomes]:
    best = max(judged, key=lambda one: float(one.result["mean_class_accuracy"]["mean"]))
    assert best.outcomes is not None
    return best, best.outcomes


def _write_hardest(judged: Sequence[Judged], rows: EvalRows, path: Path) -> dict[str, str]:
    """The rows of the best layer into a CSV file; returns which layer that is."""
    named = _comparable(judged)
    if not named:
        return {}
    best, each = _best(named)
    assert rows.labels is not None
    save_csv(path, PROBE_COLUMNS, probe_lines(each, rows.paths, rows.labels, rows.classes))
    return {name: best.result[name] for name in ("file", "layer")}


def _compare(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The best layer against every other, on the rows that both tested."""
    named = _comparable(judged)
    if len(named) < 2:
        return []
    best, each = _best(named)
    told = []
    for other in named:
        if other is not best and other.outcomes is not None:
            first, second = each.first, other.outcomes.first
            both = (first >= 0) & (second >= 0)
            paired = mcnemar(first[both] > 0, second[both] > 0)
            pair = {"first": best.name, "second": other.name, "rows": int(both.sum())}
            told.append(pair | vars(paired))
    return told


def _save(
    options: EvalOptions,
    found: LayerResult,
    x: Features,
    c: float,
    layer: LayerRows,
) -> None:
    assert options.save is not None
    model, norm, rows = probe_of(found, x, c)
    task: Task = found.task
    provenance = layer.store.provenance
    record = {
        "protocol": task.record.name,
        "probe": task.record.probe,
        "rows": rows,
        "model": provenance.get("model"),
        "weights": provenance.get("weights"),
        "preprocessing": provenance.get("preprocessing"),
        "views": "mean" if provenance.get("stored_views") else None,
        "pool": provenance.get("pool"),
        "pooled": layer.pool,
        "several": task.y is None,
    }
    with writing(options.save, option="--save"):
        save_probe(
            *(options.save, model, norm),
            classes=tuple(task.classes),
            layer=layer.layer,
            record=record,
        )


def _check_outputs(options: EvalOptions, layers: int) -> None:
    if options.save is not None and layers > 1:
        raise UsageError(
            "--save takes one layer of one file", hint="name it: --layer fc7 --save F"
        )
    before = RunDir.written("eval", options)
    for path in (options.save, options.save_splits):
        if path is not None:
            check_out(path, options.overwrite or str(path.absolute()) in before)
            if not path.parent.is_dir():
                raise DataError(f"there is no folder {path.parent}", hint="make it first")
