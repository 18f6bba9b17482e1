"""A process that writes a feature file, to be killed by ``test_kill.py``.

Run as ``python writing_process.py FILE ROWS [FILTER]``. Says on stdout ``begin``, then each
row that is written, then ``finish`` just before the file gets its name, then ``end``.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np

from alexkit.choices import Compress, FeatureDtype
from alexkit.features.layout import Plan, RowTable, Status
from alexkit.features.store import FeatureStore

LAYERS = {"conv5": (8, 5, 5), "fc7": (300,), "fc8": (3,)}
"""Rows of 800, 1200 and 12 bytes: one batch is less than a page of fc8, and many of conv5."""
BATCH = 7
UNREADABLE = 11
"""Every 11th row is unreadable."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def true_values(layer: str, rows: np.ndarray) -> np.ndarray:
    """What a row of a layer holds, for ever: a pure function of its number."""
    shape = LAYERS[layer]
    numbers = rows[:, None] * 1000.0 + np.arange(int(np.prod(shape)))
    return np.sqrt(numbers).astype(np.float32).reshape(len(rows), *shape)


def main(path: Path, count: int, compress: Compress) -> None:
    say("begin")
    table = RowTable(
        paths=tuple(f"class/{row}.jpg" for row in range(count)),
        labels=np.zeros(count, np.int32),
        splits=np.zeros(count, np.uint8),
    )
    provenance = {"fingerprint": {"weights": "1234"}}
    plan = Plan(table, ("class",), LAYERS, FeatureDtype.FLOAT32, provenance)
    with FeatureStore.create(path, plan, compress=compress) as writer:
        pending = writer.pending()
        for start in range(0, pending.size, BATCH):
            rows = pending[start : start + BATCH]
            good = rows[rows % UNREADABLE != 0]
            writer.append(good, {layer: true_values(layer, good) for layer in LAYERS})
            for row in rows[rows % UNREADABLE == 0].tolist():
                writer.mark(row, Status.UNREADABLE, f"number {row} is broken")
            say(*rows.tolist())
        say("finish")
        writer.finish({"ended": "now"})
        say("end")


if __name__ == "__main__":
    assert "torch" not in sys.modules, "the store has to be quick to import"
    main(Path(sys.argv[1]), int(sys.argv[2]), Compress((sys.argv[3:] or ["none"])[0]))
