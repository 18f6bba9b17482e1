"""``eval.json`` as people read it."""

from __future__ import annotations

from typing import Any

from alexkit.reports.scores import (
    comparison_lines,
    eval_table,
    gap_lines,
    interval_lines,
    spread,
)

SCORE = {"mean": 0.5, "std": 0.1}
RESULT: dict[str, Any] = {
    "layer": "fc7",
    "C": 1e-5,
    "splits": 5,
    "n_train": 480,
    "n_test": 120,
    "accuracy": SCORE,
    "mean_class_accuracy": SCORE,
    "per_class": {"ant": 0.5, "bee": None},
    "map": {"area": {"mean": 0.25, "std": 0.0}, "eleven_point": {"mean": 0.3, "std": 0.0}},
}


def test_a_spread_needs_several_splits() -> None:
    assert spread({"mean": 0.838, "std": 0.05}, 5) == "83.8 ± 5.0 %"
    assert spread({"mean": 0.838, "std": 0.0}, 1) == "83.8 %"
    assert spread(None, 1) == "–"


def test_one_row_a_layer() -> None:
    header, rows = eval_table([RESULT])
    assert len(header) == len(rows[0])
    assert rows == [["fc7", "1e-05", "5", "480", "120", "50.0 ± 10.0 %", "50.0 ± 10.0 %"]]


def test_others_figures_stand_beside_the_layers_they_have() -> None:
    known = [{"name": "DeCAF", "percent": {"fc7": [83.24, 1.2], "conv1": [44.8, None]}}]
    header, rows = eval_table(
        [RESULT, RESULT | {"layer": "conv1"}, RESULT | {"layer": "x"}], known
    )
    assert header[-1] == "DeCAF"
    assert [row[-1] for row in rows] == ["83.2 ± 1.2 %", "44.8 %", "–"]


def test_a_learning_curve_names_its_shots() -> None:
    header, rows = eval_table([RESULT | {"shots": 1}, RESULT | {"shots": 5, "C": None}])
    assert header[1] == "shots"
    assert [row[1:3] for row in rows] == [["1", "1e-05"], ["5", "–"]]


def test_several_classes_a_row_have_both_precisions() -> None:
    header, rows = eval_table([RESULT | {"accuracy": None, "splits": 1}])
    assert header[-2:] == ["mAP, area", "mAP, 11 points"]
    assert rows[0][-2:] == ["25.0 %", "30.0 %"]


def test_more_than_five_classes_have_a_top_5() -> None:
    header, rows = eval_table(
        [RESULT | {"per_class": dict.fromkeys("abcdef", 0.5), "top5": SCORE}]
    )
    assert header[-1] == "top-5"
    assert rows[0][-1] == "50.0 ± 10.0 %"


def test_the_largest_gap_is_told_where_one_is_known() -> None:
    told = [RESULT | {"objective_gap": gap} for gap in (3e-8, 8.7e-7, 0.0)]
    assert gap_lines(told) == [
        "objectives are at most 8.7e-07 of themselves above their minima (certified)"
    ]
    assert gap_lines(told[2:]) == []


def test_lines() -> None:
    ends = {"interval": {"mean_class_accuracy": [0.4, 0.625]}}
    assert interval_lines([RESULT, RESULT | ends]) == [
        "fc7: mean class accuracy between 40.0 % and 62.5 % (95 %, test rows drawn again)"
    ]
    pair = {"first": "fc7", "second": "fc6", "first_only": 9, "second_only": 1, "rows": 50}
    assert comparison_lines([pair | {"p": 0.021484375}]) == [
        "fc7 against fc6: right alone 9 and 1 of 50, p = 0.021 (McNemar, exact)"
    ]
