"""Every image judged once, by what was learnt from the other folds."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.events import Note, Saved, silent
from alexkit.images.source import NO_LABEL
from alexkit.recipes.division import parts_of, tell_counts
from alexkit.recipes.finetune_work import (
    importance_of,
    put_head,
    restore,
    solve_head,
    write_both,
)
from alexkit.recipes.inputs import Holdout
from alexkit.recipes.predictions import PREDICTIONS
from alexkit.recipes.run_dir import Remembering, RunDir, result_in
from alexkit.recipes.stored import StoredViews
from alexkit.reports.tables import save_csv

if TYPE_CHECKING:
    from alexkit.recipes.finetune_work import Work

CarryOut = Callable[
    [
        "Work",
        Holdout,
        npt.NDArray[np.int64],
        "StoredViews | None",
        RunDir,
        Remembering,
    ],
    dict[str, Any],
]


def run_folds(
    work: Work,
    groups: npt.NDArray[np.int64],
    stored: StoredViews | None,
    folder: RunDir,
    report: Remembering,
    carry_out: CarryOut,
) -> dict[str, Any]:
    """A run a fold, each in a folder of its own, and weights to use.

    Those are fitted to all images where the head is fitted at once, so that no figure but the
    folds' is known of them; else they are the first fold's. A fold that is done is not
    repeated.

    Returns:
        As one run, ``top1`` being the mean over the folds, with ``std`` and ``folds``.
    """
    options = work.options
    assert options.folds is not None
    start = {name: t.clone() for name, t in work.backbone.net.canonical_state_dict().items()}
    results = []
    for k, rows in enumerate(parts_of(work.source, groups, options.folds, options.seed)):
        tell_counts(work.source, rows, options.folds, silent if k else report)
        place = folder.path / f"fold-{k + 1}"
        if done := result_in(place):
            results.append(done)
            continue
        restore(work, start)
        remembering = Remembering(report)
        with RunDir.open("finetune", replace(options, out=place), remembering) as part:
            result = carry_out(work, rows, groups, stored, part, remembering)
            part.finish(result)
        results.append(result)
        report(Note(f"fold {k + 1} of {options.folds}: {result['top1']:.1%}"))
    _keep_weights(work, groups, stored, folder, start, report)
    _join(
        [folder.path / f"fold-{k + 1}" / PREDICTIONS for k in range(options.folds)],
        folder.path / PREDICTIONS,
    )
    return _summary(results, folder)


def _keep_weights(
    work: Work,
    groups: npt.NDArray[np.int64],
    stored: StoredViews | None,
    folder: RunDir,
    start: dict[str, Any],
    report: Remembering,
) -> None:
    weights = folder.path / "weights"
    if work.how.solved and stored is not None:
        labelled = np.flatnonzero(np.asarray(work.source.labels) != NO_LABEL)
        everything = Holdout(stored.rows(labelled), labelled[:0], Split.VAL)
        importance = importance_of(work, everything, silent)
        restore(work, start)
        head = solve_head(work, everything.train, groups, stored, importance, silent)
        put_head(work, head)
        write_both(work, weights)
        report(Note("the weights are fitted to all images; the folds' mean is their figure"))
    else:
        weights.mkdir(exist_ok=True)
        for name in ("best", "last"):
            kept = folder.path / "fold-1" / "weights" / f"{name}.safetensors"
            shutil.copyfile(kept, weights / kept.name)
        report(Note("the weights are those of the first fold"))
    report(Saved("weights", str(weights / "best.safetensors")))


def _join(parts: list[Path], path: Path) -> None:
    """One file of the lines of several, the first one's header once."""
    tables = []
    for part in parts:
        with part.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            tables.append(list(csv.reader(file)))
    save_csv(path, tables[0][0], sorted(line for table in tables for line in table[1:]))


def _summary(results: list[dict[str, Any]], folder: RunDir) -> dict[str, Any]:
    top1 = np.array([result["top1"] for result in results])
    counts = np.array([result["n"] for result in results])
    told = dict(results[0])
    for name in {"top5", "top1_of_views"} & told.keys():
        told[name] = float(np.mean([result[name] for result in results]))
    told |= {
        "top1": float(top1.mean()),
        "std": float(top1.std(ddof=1)),
        "n": int(counts.sum()),
        "folds": [float(one) for one in top1],
        "seconds": folder.spent,
        "run": str(folder.path),
    }
    return told
