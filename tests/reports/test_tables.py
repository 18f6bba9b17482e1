"""Numbers as people read them."""

from __future__ import annotations

import pytest

from alexkit.reports.tables import eval_table, percent, size, spread


def test_percent() -> None:
    assert percent(0.8312) == "83.1 %"
    assert percent(None) == "–"


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (244_000_000, "244.0 MB"), (3e12, "3.0 TB")],
)
def test_size(count: int, told: str) -> None:
    assert size(count) == told


def test_a_spread_needs_several_splits() -> None:
    assert spread({"mean": 0.838, "std": 0.05}, 5) == "83.8 ± 5.0 %"
    assert spread({"mean": 0.838, "std": 0.0}, 1) == "83.8 %"


def test_eval_table() -> None:
    score = {"mean": 0.5, "std": 0.1}
    result = {"layer": "fc7", "C": 1e-5, "splits": 5, "n_train": 480, "n_test": 120}
    header, rows = eval_table([{**result, "accuracy": score, "mean_class_accuracy": score}])
    assert len(header) == len(rows[0])
    assert rows[0] == ["fc7", "1e-05", "5", "480", "120", "50.0 ± 10.0 %", "50.0 ± 10.0 %"]
