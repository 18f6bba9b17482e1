"""A feature file to be, and its true content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from alexkit.choices import FeatureDtype
from alexkit.features.layout import Plan, RowTable, Status
from alexkit.features.store import FeatureStore
from alexkit.features.writer import FeatureWriter

LAYERS = {"conv5": (3, 2, 2), "fc7": (40,)}
CLASSES = ("ants", "bees", "Wespen ünd Hornissen")
FINGERPRINT = {"weights": "a1b2", "preprocessing": {"resize": 256, "crop": 224}, "data": "77"}
BAD = {3: (Status.UNREADABLE, "broken data stream"), 17: (Status.NON_FINITE, "fc7 holds nan")}


class Example:
    """What is written in these tests, and how.

    25 rows in the splits train, val, test and none by turns; every fifth has no label; rows 3
    and 17 are bad.
    """

    count = 25
    layers = LAYERS
    classes = CLASSES
    fingerprint = FINGERPRINT
    bad = BAD

    def __init__(self, folder: Path) -> None:
        self.path = folder / "features.h5"
        self.partial = folder / "features.h5.partial"
        rng = np.random.default_rng(7)
        self.values: dict[str, npt.NDArray[Any]] = {
            name: rng.normal(size=(self.count, *shape)).astype(np.float32)
            for name, shape in LAYERS.items()
        }
        self.rows = RowTable(
            paths=tuple(f"klasse/Bild {row} – größer.jpg" for row in range(self.count)),
            labels=np.array([-1 if r % 5 == 4 else r % 3 for r in range(25)], np.int32),
            splits=np.array([(row + 1) % 4 for row in range(self.count)], np.uint8),
        )
        self.good = np.setdiff1d(np.arange(self.count), list(BAD))

    def create(self, **changes: Any) -> FeatureWriter:
        settings: dict[str, Any] = {
            "rows": self.rows,
            "classes": CLASSES,
            "layers": LAYERS,
            "dtype": FeatureDtype.FLOAT32,
            "provenance": {"fingerprint": FINGERPRINT, "command": "alexkit features"},
        }
        how = {k: changes.pop(k) for k in ("compress", "overwrite") if k in changes}
        return FeatureStore.create(self.path, Plan(**{**settings, **changes}), **how)

    def fill(self, writer: FeatureWriter, batch: int = 4) -> None:
        """Does every row that is still to do, ``batch`` rows at a time."""
        pending = writer.pending()
        for start in range(0, pending.size, batch):
            rows = pending[start : start + batch]
            good = np.array([row for row in rows if row not in BAD], np.int64)
            assert writer.append(good, {k: v[good] for k, v in self.values.items()}) == ()
            for row in sorted(set(rows.tolist()) & set(BAD)):
                writer.mark(row, *BAD[row])

    def write(self, **changes: Any) -> Path:
        """The finished file."""
        with self.create(**changes) as writer:
            self.fill(writer)
            writer.finish({"ended": "2012-12-03T10:00:00"})
        return self.path


@pytest.fixture
def example(tmp_path: Path) -> Example:
    return Example(tmp_path)
