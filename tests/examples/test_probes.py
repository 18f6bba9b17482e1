"""The probe benchmark runs, at a size that says nothing about speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from joblib import parallel_config

from tests.conftest import feature_file


def test_every_size_is_measured_and_drawn(tmp_path: Path, benchmark: Any) -> None:
    labels = (np.arange(60) % 2).astype(np.int32)
    values = np.random.default_rng(0).normal(size=(60, 30)).astype(np.float32)
    values[labels == 1] += 0.5
    rows = {"labels": labels, "splits": np.ones(60), "classes": ("ants", "bees")}
    feature_file(tmp_path / "F.h5", {"fc7": values}, **rows)
    words = "F.h5 --layer fc7 --rows 60 40 --columns 30 10 --classes 4 --folds 2 --grid"
    with parallel_config("threading"):  # processes would take longer to start than to work
        result, told = benchmark("probes.py", f"{words} --rounds 1 --plot o.png")
    results = result["results"]
    sizes = [(r["rows"], r["columns"], r["classes"]) for r in results]
    assert sizes == [(40, 30, 4), (60, 10, 4), (60, 30, 4)]
    for result in results:
        assert result["gap"]["reached"] <= result["gap"]["asked"]
        assert result["grid"]["gap"] <= 1e-4
        assert result["times"] > 0
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")
    assert told.count("GridSearchCV") == len(results)
