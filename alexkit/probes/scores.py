"""The scores of all splits of a layer, as ``eval.json`` has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alexkit.probes.compare import bootstrap
from alexkit.probes.leaks import NEAR

if TYPE_CHECKING:
    from alexkit.probes.protocol import LayerResult, SplitResult


def summary(layer: LayerResult) -> dict[str, Any]:
    """One entry of ``results`` in ``eval.json``, without ``file`` and ``layer``.

    ``n_train`` and ``n_test`` are rows a split; ``C`` the one most often chosen, null for
    a probe without one; ``cv`` has the mean score of each C and how often it was chosen;
    ``map`` is the mean average precision by ``area`` and by ``eleven_point``s; ``interval``,
    on one split, the ends of the bootstrap's 95 %; ``confusion`` the counts of all splits, true
    class down; ``leaks`` the test rows that a training row gives away. ``objective_gap`` is
    the largest of the scored models.
    """
    splits, task = layer.splits, layer.task
    names = list(task.classes)
    every_c = [c for split in splits for c in _distinct(split)]
    chosen = Counter(every_c)
    tried = sorted({c for split in splits for c in split.choice.grid})
    has_c = task.record.probe != "knn"
    told: dict[str, Any] = {
        "C": min(chosen, key=lambda c: (-chosen[c], c)) if has_c else None,
        "splits": len(splits),
        "n_train": round(float(np.mean([split.division.train.size for split in splits]))),
        "n_test": round(float(np.mean([split.division.test.size for split in splits]))),
        "accuracy": spread([split.accuracy for split in splits]),
        "mean_class_accuracy": spread([split.mean_class_accuracy for split in splits]),
        "top5": spread([split.top5 for split in splits]),
        "map": {
            "area": spread([split.map[0] for split in splits]),
            "eleven_point": spread([split.map[1] for split in splits]),
        },
        "per_class": _per_class(splits, names),
        "cv": [
            {"C": c, "score": _mean(splits, c), "chosen": chosen[c]} for c in tried if has_c
        ],
        "objective_gap": max(split.gap for split in splits),
        "leaks": {
            "identical": int(layer.leaks.identical.size),
            "near": int(layer.leaks.near.size),
            "cosine": NEAR,
            "pairs": [
                [task.name(int(a)), task.name(int(b))] for a, b in layer.leaks.pairs[:20]
            ],
        },
    }
    if task.record.per_class:
        told["C_per_class"] = dict(zip(names, splits[0].choice.c.tolist(), strict=True))
    if task.y is not None:
        tables = [split.table for split in splits if split.table is not None]
        told["confusion"] = np.sum(tables, axis=0).tolist()
        if len(splits) == 1:
            assert splits[0].right is not None
            rows = splits[0].division.test
            ends = bootstrap(splits[0].right, task.y[rows], task.seed)
            told["interval"] = {name: list(pair) for name, pair in ends.items()}
    return told | {"seconds": layer.seconds}


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean and sample standard deviation, 0 for a single value; None of nothing."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    std = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    return {"mean": float(np.mean(known)), "std": std}


def _distinct(split: SplitResult) -> list[float]:
    """The C of a split: one, or each class's own."""
    c: list[float] = split.choice.c.tolist()
    return c if len(set(c)) > 1 else c[:1]


def _mean(splits: Sequence[SplitResult], c: float) -> float:
    return float(np.mean([s.choice.grid[c] for s in splits if c in s.choice.grid]))


def _per_class(splits: Sequence[SplitResult], names: list[str]) -> dict[str, float | None]:
    shares = np.stack([split.per_class for split in splits])
    known = np.isfinite(shares)
    total = np.where(known, shares, 0.0).sum(axis=0)
    return {
        name: float(value / count) if count else None
        for name, value, count in zip(names, total, known.sum(axis=0), strict=True)
    }
