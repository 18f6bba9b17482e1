"""The protocols: the result's shape, its truth, and that test rows never choose anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.svm import LinearSVC

from alexkit.errors import DataError, UnknownName
from alexkit.events import (
    Chosen,
    Event,
    Reporter,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Warned,
    silent,
)
from alexkit.probes.choice import choose_c, part_inside
from alexkit.probes.objective import one_vs_rest
from alexkit.probes.protocol import Task, judge, judge_layer, single_task
from alexkit.probes.protocols import RECORDS, protocol_of
from alexkit.probes.scores import summary
from alexkit.probes.splits import Division, divide, stratified_folds
from tests.probes.conftest import MakeProblem

CLASSES = ("ants", "bees", "cats", "dogs")
TRAIN, VAL = 1, 2


def evaluate(
    x: Any,
    y: Any,
    classes: Sequence[str],
    *,
    protocol: str,
    splits: Any = None,
    seed: int = 0,
    report: Reporter = silent,
    **changed: str,
) -> dict[str, Any]:
    """The entry in ``eval.json`` of an array of features with one label a row."""
    record = replace(protocol_of(protocol), **changed)  # type: ignore[arg-type]
    task = single_task(y, classes, record, splits=splits, seed=seed)
    return summary(judge_layer(x, task, report))


class TestResult:
    def test_has_the_shape_of_the_interface(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(120, 300, 4)
        result = evaluate(x.astype(np.float32), y, CLASSES, protocol="kfold")
        assert list(result) == [
            *("C", "splits", "n_train", "n_test", "accuracy", "mean_class_accuracy", "top5"),
            *("map", "per_class", "cv", "objective_gap", "leaks", "confusion", "seconds"),
        ]
        assert result["splits"] == 5
        assert (result["n_train"], result["n_test"]) == (96, 24)
        assert set(result["accuracy"]) == {"mean", "std"}
        assert result["top5"] == {"mean": 1.0, "std": 0.0}
        assert set(result["map"]) == {"area", "eleven_point"}
        assert np.sum(result["confusion"]) == 120
        assert np.trace(result["confusion"]) == round(120 * result["accuracy"]["mean"])
        assert list(result["per_class"]) == list(CLASSES)
        assert [set(entry) for entry in result["cv"]] == [{"C", "score", "chosen"}] * 5
        assert sum(entry["chosen"] for entry in result["cv"]) == 5
        assert 0 < result["objective_gap"] < 1e-6
        assert json.loads(json.dumps(result, allow_nan=False)) == result

    def test_is_a_function_of_the_seed(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(100, 200, 4, apart=0.1)
        results = [evaluate(x, y, CLASSES, protocol="kfold", seed=s) for s in (1, 1, 2)]
        for result in results:
            result.pop("seconds")
        assert json.dumps(results[0]) == json.dumps(results[1])
        assert results[0]["accuracy"] != results[2]["accuracy"]

    @pytest.mark.parametrize("norm", ["none", "l2", "standardize"])
    def test_is_that_of_a_plain_scikit_learn_script(
        self, make_problem: MakeProblem, norm: Any
    ) -> None:
        x, y = make_problem(100, 250, 4, apart=0.15)
        result = evaluate(x, y, CLASSES, protocol="kfold", norm=norm)
        fold = stratified_folds(y, 5, seed=0)
        accuracies, chosen = [], []
        for k in range(5):
            rows = {"none": x, "l2": x / np.linalg.norm(x, axis=1, keepdims=True)}.get(norm)
            if rows is None:
                rows = (x - x[fold != k].mean(axis=0)) / x[fold != k].std(axis=0)
            train = rows[fold != k]
            centre = -np.round(np.log10((train**2).sum(axis=1).mean()))
            search = GridSearchCV(
                LinearSVC(tol=1e-8, max_iter=1_000_000, random_state=0),
                {"C": [float(f"1e{int(centre + decade)}") for decade in (-2, -1, 0, 1, 2)]},
                cv=PredefinedSplit(stratified_folds(y[fold != k], 3, seed=0)),
                scoring="balanced_accuracy",
            ).fit(train, y[fold != k])
            accuracies.append(search.score(rows[fold == k], y[fold == k]))
            chosen.append(search.best_params_["C"])
        assert result["mean_class_accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
        assert result["mean_class_accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))
        counts = {entry["C"]: entry["chosen"] for entry in result["cv"] if entry["chosen"]}
        assert counts == {c: chosen.count(c) for c in chosen}
        assert result["C"] == min(counts, key=lambda c: (-counts[c], c))

    def test_one_holdout_has_no_spread(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(90, 50, 3)
        splits = np.where(np.arange(90) < 60, TRAIN, VAL).astype(np.uint8)
        result = evaluate(x, y, CLASSES, protocol="holdout", splits=splits)
        assert result["splits"] == 1
        assert (result["n_train"], result["n_test"]) == (60, 30)
        assert result["accuracy"]["std"] == 0.0
        assert result["per_class"]["dogs"] is None

    def test_top5_counts_more_than_top1(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(200, 60, 10, apart=0.2)
        result = evaluate(x, y, [str(k) for k in range(10)], protocol="kfold")
        assert result["accuracy"]["mean"] < result["top5"]["mean"] <= 1.0

    def test_leaks_are_told_before_any_fit(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(60, 40, 3)
        x[7] = x[4]
        x[9] = 2 * x[6]
        splits = np.where(np.arange(60) % 10 == 7, VAL, TRAIN).astype(np.uint8)
        splits[9] = VAL
        events: list[Event] = []
        result = evaluate(
            x, y, CLASSES, protocol="holdout", splits=splits, report=events.append
        )
        assert events[0] == Warned(
            "test rows that equal a training row: 1, near one (cosine 0.999 or more): 1; "
            "the first: row 7 and row 4"
        )
        assert isinstance(events[1], StageStarted)
        assert result["leaks"]["pairs"] == [["row 7", "row 4"], ["row 9", "row 6"]]

    @pytest.mark.parametrize(
        ("protocol", "settings", "fits"),
        [
            ("kfold", {}, 5 * (5 * 3 * 3 + 3)),  # splits × (C × folds × classes + classes)
            ("kfold", {"probe": "knn"}, 5),
            ("kfold", {"probe": "logistic"}, 5 * (5 * 3 + 1)),
            ("clip", {}, 7 + 8 + 1),  # the steps that are looked at twice are not needed
            ("goyal", {}, 11 * 3 * 4 + 4),
        ],
    )
    def test_how_far_it_is(
        self, make_problem: MakeProblem, protocol: str, settings: Any, fits: int
    ) -> None:
        x, y = make_problem(60, 40, 3)
        events: list[Event] = []
        evaluate(x, y, CLASSES, protocol=protocol, report=events.append, **settings)
        (start,) = (event for event in events if isinstance(event, StageStarted))
        assert (start.total, start.unit) == (fits, "fits")
        done = [event.done for event in events if isinstance(event, StageAdvanced)]
        assert done == sorted(done)
        assert done[-1] == fits or (protocol == "clip" and 8 < done[-1] < fits)
        assert isinstance(events[-1], StageFinished)
        ways = [event.value for event in events if isinstance(event, Chosen)]
        linear = protocol == "goyal" or (not settings and protocol == "kfold")
        assert ways == ["Gram matrix made once"] * linear

    def test_a_model_that_is_not_optimal_is_warned_of(
        self, make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("alexkit.probes.gram.ROUNDS", 0)
        x, y = make_problem(60, 40, 3, apart=0.0)
        events: list[Event] = []
        evaluate(x, y, CLASSES, protocol="kfold", report=events.append)
        assert any(isinstance(event, Warned) for event in events)


def task(y: Any, classes: int, norm: str = "none", seed: int = 0) -> Task:
    record = replace(protocol_of("kfold"), norm=norm)
    return Task(record, CLASSES[:classes], y, one_vs_rest(y, np.arange(classes)), (), seed)


class TestNothingLeaks:
    def test_labels_by_chance_give_chance(self, make_problem: MakeProblem) -> None:
        x, _ = make_problem(200, 800, 4)
        y = np.random.default_rng(1).permutation(np.arange(200) % 4)
        result = evaluate(x, y, CLASSES, protocol="kfold", norm="standardize")
        # 0.25 ± 0.031 is what guessing 200 rows gives; a fitted test row counts as right.
        assert abs(result["accuracy"]["mean"] - 0.25) < 0.1

    @pytest.mark.parametrize("norm", ["none", "l2", "standardize"])
    def test_what_only_test_rows_show_changes_nothing(
        self, make_problem: MakeProblem, norm: Any
    ) -> None:
        x, y = make_problem(120, 300, 4, apart=0.1)
        division = divide(y, CLASSES, protocol_of("kfold"), splits=None, seed=0)[0]
        planted = np.zeros((120, 4))
        planted[division.test, y[division.test]] = 100.0  # names the class, in test rows only
        bare, spiked = (
            judge(rows, task(y, 4, norm), division)
            for rows in (np.concatenate([x, 0 * planted], 1), np.concatenate([x, planted], 1))
        )
        assert spiked.choice.grid == bare.choice.grid
        np.testing.assert_array_equal(spiked.choice.c, bare.choice.c)
        if norm == "none":
            assert spiked.accuracy == bare.accuracy

    @pytest.mark.parametrize("norm", ["standardize", "pca:20"])
    def test_other_test_rows_choose_the_same_model(
        self, make_problem: MakeProblem, norm: str
    ) -> None:
        x, y = make_problem(120, 60, 4, apart=0.1)
        division = Division(np.arange(80), np.arange(80, 120))
        rng = np.random.default_rng(5)
        other_x, other_y = x.copy(), y.copy()
        other_x[80:] = 1e3 * rng.random((40, 60))
        other_y[80:] = rng.permutation(y[80:])
        first, second = (
            judge(rows, task(labels, 4, norm), division)
            for rows, labels in ((x, y), (other_x, other_y))
        )
        assert first.choice.grid == second.choice.grid
        for name in ("weights", "bias"):
            np.testing.assert_array_equal(
                getattr(first.model, name), getattr(second.model, name)
            )

    def test_the_choice_of_c_is_made_inside_the_training_rows(
        self, make_problem: MakeProblem
    ) -> None:
        x, y = make_problem(90, 300, 3, apart=0.1)
        (first, *_) = divide(y, CLASSES, protocol_of("kfold"), splits=None, seed=4)
        record, labels = protocol_of("kfold"), y[first.train]
        inside = part_inside(labels, labels.size, np.empty(0, int), record, 4)
        alone = choose_c(
            x[first.train], labels, one_vs_rest(labels, np.arange(3)), record, inside
        )
        whole = judge(x, task(y, 3, seed=4), first)
        assert whole.choice.grid == pytest.approx(alone.grid)

    def test_of_equal_scores_the_smallest_c_is_chosen(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(60, 100, 3, apart=5.0)
        division = divide(y, CLASSES, protocol_of("kfold"), splits=None, seed=0)[0]
        found = judge(x, task(y, 3), division).choice
        best = [c for c, score in found.grid.items() if score == max(found.grid.values())]
        assert len(best) > 1
        assert found.c.tolist() == [min(best)] * 3


class TestBadInput:
    def test_no_rows_at_all(self) -> None:
        with pytest.raises(DataError, match="no row has both features and a label"):
            evaluate(np.empty((0, 4)), np.empty(0, int), CLASSES, protocol="kfold")

    def test_a_feature_that_is_no_number(self) -> None:
        x, y = np.ones((20, 4)), np.arange(20) % 2
        x[7, 2] = np.nan
        with pytest.raises(DataError, match="row 7 of the features"):
            evaluate(x, y, CLASSES, protocol="kfold")

    @pytest.mark.parametrize("norm", ["none", "l2", "power", "standardize", "pca:3"])
    def test_one_column_and_constant_columns_and_rows_of_zeros(self, norm: Any) -> None:
        y = np.arange(20) % 2
        x = np.where(y == 1, 2.0, -1.0)[:, None]
        assert evaluate(x, y, CLASSES, protocol="kfold", norm=norm)["accuracy"]["mean"] == 1.0
        wide = np.concatenate([x, np.full((20, 30), 3.0)], axis=1)
        wide[:2] = 0.0
        found = evaluate(wide, y, CLASSES, protocol="kfold", norm=norm)
        assert found["accuracy"]["mean"] >= 0.9

    def test_unknown_names(self) -> None:
        x, y = np.ones((20, 2)), np.arange(20) % 2
        for settings, message in (
            ({"protocol": "hold-out"}, "no protocol 'hold-out'"),
            ({"protocol": "kfold", "norm": "L2"}, "no norm 'L2'"),
        ):
            with pytest.raises(UnknownName, match=message):
                evaluate(x, y, CLASSES, **settings)  # type: ignore[arg-type]


class TestEveryProtocol:
    @pytest.mark.parametrize(
        "name", [record.name for record in RECORDS if record.name != "voc07"]
    )
    def test_learns_what_can_be_learned(self, make_problem: MakeProblem, name: str) -> None:
        x, y = make_problem(160, 60, 4, apart=1.0)
        splits = np.where(np.arange(160) < 100, TRAIN, VAL).astype(np.uint8)
        if protocol_of(name).parts == "few-shot":
            splits[:] = 0
        result = evaluate(x, y, CLASSES, protocol=name, splits=splits)
        assert result["accuracy"]["mean"] > 0.9
        assert result["map"]["area"]["mean"] > 0.9
        assert result["splits"] == (1 if protocol_of(name).parts == "holdout" else 5)

    def test_coordinates_change_no_score(self, make_problem: MakeProblem) -> None:
        """The same problem with more rows than columns, and with columns of zeros added."""
        x, y = make_problem(90, 60, 3, apart=0.1)
        wide = np.concatenate([x, np.zeros((90, 60))], axis=1)
        for norm in ("none", "l2", "pca:10"):
            narrow, turned = (
                evaluate(rows, y, CLASSES, protocol="kfold", norm=norm) for rows in (x, wide)
            )
            assert narrow["confusion"] == turned["confusion"]
            assert narrow["cv"] == turned["cv"]

    def test_a_protocol_that_is_changed(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(90, 60, 3)
        result = evaluate(x, y, CLASSES, protocol="kfold", probe="knn", norm="l2")
        assert result["C"] is None
        assert result["cv"] == []
