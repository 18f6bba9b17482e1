"""The protocols: the result's shape, its truth, and that test rows never choose anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV, PredefinedSplit
from sklearn.svm import LinearSVC

from alexkit.errors import DataError, UnknownName
from alexkit.events import (
    Event,
    Note,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Warned,
)
from alexkit.probes import protocol
from alexkit.probes.protocol import describe, evaluate, judge, normalised, search_c
from alexkit.probes.splits import Division, divide, stratified_folds

if TYPE_CHECKING:
    from tests.probes.conftest import MakeProblem

CLASSES = ("ants", "bees", "cats", "dogs")
TRAIN, VAL = 1, 2


class TestResult:
    def test_has_the_shape_of_the_interface(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(120, 300, 4)
        result = evaluate(x.astype(np.float32), y, CLASSES, protocol="kfold")
        assert list(result) == [
            "C",
            "splits",
            "n_train",
            "n_test",
            "accuracy",
            "mean_class_accuracy",
            "top5",
            "map",
            "per_class",
            "cv",
            "objective_gap",
            "seconds",
        ]
        assert result["splits"] == 5
        assert (result["n_train"], result["n_test"]) == (96, 24)
        assert set(result["accuracy"]) == {"mean", "std"}
        assert result["top5"] == {"mean": 1.0, "std": 0.0}
        assert result["map"] is None
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

    def test_rows_without_a_label_are_left_out_and_said(
        self, make_problem: MakeProblem
    ) -> None:
        x, y = make_problem(60, 40, 3)
        with_more = np.concatenate([x, np.full((4, 40), 9.0)])
        events: list[Event] = []
        result = evaluate(
            with_more, np.append(y, [-1] * 4), CLASSES, protocol="kfold", report=events.append
        )
        alone = evaluate(x, y, CLASSES, protocol="kfold")
        assert result["accuracy"] == alone["accuracy"]
        assert Note("4 rows without a label are left out") in events

    def test_every_fit_is_reported(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(60, 40, 3)
        events: list[Event] = []
        evaluate(x, y, CLASSES, protocol="kfold", report=events.append)
        assert events[0] == StageStarted("probe", 80, "fits")  # 5 folds × (5 C × 3 folds + 1)
        assert events[1:-1] == [StageAdvanced("probe", done) for done in range(1, 81)]
        assert isinstance(events[-1], StageFinished)

    def test_a_model_that_is_not_optimal_is_warned_of(
        self, make_problem: MakeProblem, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("alexkit.probes.gram.ROUNDS", 0)
        x, y = make_problem(60, 40, 3, apart=0.0)
        events: list[Event] = []
        evaluate(x, y, CLASSES, protocol="kfold", report=events.append)
        assert any(isinstance(event, Warned) for event in events)

    def test_the_protocol_in_words(self) -> None:
        told = describe("kfold", norm="l2", seed=3)
        assert told["name"] == "kfold"
        assert told["norm"] == "l2"
        assert told["seed"] == 3
        assert json.loads(json.dumps(told)) == told


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
        division = divide(y, CLASSES, protocol="kfold", splits=None, seed=0)[0]
        planted = np.zeros((120, 4))
        planted[division.test, y[division.test]] = 100.0  # names the class, in test rows only
        bare, spiked = (
            judge(rows, y, division, classes=4, norm=norm, seed=0)
            for rows in (np.concatenate([x, 0 * planted], 1), np.concatenate([x, planted], 1))
        )
        assert spiked.grid == bare.grid
        assert spiked.c == bare.c
        if norm == "none":
            assert spiked.accuracy == bare.accuracy

    def test_other_test_rows_choose_the_same_model(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(120, 60, 4, apart=0.1)
        division = Division(np.arange(80), np.arange(80, 120))
        rng = np.random.default_rng(5)
        other_x, other_y = x.copy(), y.copy()
        other_x[80:] = 1e3 * rng.random((40, 60))
        other_y[80:] = rng.permutation(y[80:])
        first, second = (
            judge(rows, labels, division, classes=4, norm="standardize", seed=0)
            for rows, labels in ((x, y), (other_x, other_y))
        )
        assert first.grid == second.grid
        np.testing.assert_array_equal(first.model.weights, second.model.weights)

    def test_the_choice_of_c_is_made_inside_the_training_rows(
        self, make_problem: MakeProblem
    ) -> None:
        x, y = make_problem(90, 300, 3, apart=0.1)
        (first, *_) = divide(y, CLASSES, protocol="kfold", splits=None, seed=4)
        alone = search_c(x[first.train], y[first.train], seed=4)
        whole = judge(x, y, first, classes=3, norm="none", seed=4)
        assert whole.grid == pytest.approx(alone)

    def test_of_equal_scores_the_smallest_c_is_chosen(self, make_problem: MakeProblem) -> None:
        x, y = make_problem(60, 100, 3, apart=5.0)
        division = divide(y, CLASSES, protocol="kfold", splits=None, seed=0)[0]
        result = judge(x, y, division, classes=3, norm="none", seed=0)
        best = [c for c, score in result.grid.items() if score == max(result.grid.values())]
        assert len(best) > 1
        assert result.c == min(best)


class TestNormalisation:
    def test_l2_makes_rows_of_length_one(self) -> None:
        rows = normalised(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[0.0, 2.0]]), "l2")
        assert rows.tolist() == [[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]

    def test_standardize_is_fitted_on_training_rows(self) -> None:
        train, test = np.array([[1.0, 7.0], [3.0, 7.0]]), np.array([[10.0, 8.0]])
        rows = normalised(train, test, "standardize")
        assert rows.tolist() == [[-1.0, 0.0], [1.0, 0.0], [8.0, 1.0]]

    def test_float16_is_computed_in_float64(self) -> None:
        rows = normalised(
            np.full((1, 2), 60000, np.float16), np.zeros((1, 2), np.float16), "l2"
        )
        np.testing.assert_allclose(rows[0], np.sqrt(0.5))


class TestBadInput:
    @pytest.mark.parametrize(
        ("y", "message"),
        [
            ([-1] * 20, "no row has both features and a label"),
            ([2] * 20, "all 20 rows are of one class, 'cats'"),
            ([0] * 17 + [1] * 3, "class 'bees' has 3 rows, fewer than the 5 folds"),
        ],
    )
    def test_labels(self, y: list[int], message: str) -> None:
        x = np.random.default_rng(0).random((20, 4))
        with pytest.raises(DataError, match=message) as refused:
            evaluate(x, np.array(y), CLASSES, protocol="kfold")
        assert refused.value.hint

    def test_no_rows_at_all(self) -> None:
        with pytest.raises(DataError, match="no row has both features and a label"):
            evaluate(np.empty((0, 4)), np.empty(0, int), CLASSES, protocol="kfold")

    def test_features(self) -> None:
        y = np.arange(20) % 2
        with pytest.raises(DataError, match="features of all training rows are zero"):
            evaluate(np.zeros((20, 4)), y, CLASSES, protocol="kfold")
        x = np.ones((20, 4))
        x[7, 2] = np.nan
        with pytest.raises(DataError, match="row 7 of the features"):
            evaluate(x, y, CLASSES, protocol="kfold")

    @pytest.mark.parametrize("norm", ["none", "l2", "standardize"])
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


def test_the_grid_is_written_in_powers_of_ten() -> None:
    assert all(isinstance(decade, int) for decade in protocol.DECADES)
    y = np.arange(30) % 3
    x = np.eye(3)[y] * 300.0 + np.random.default_rng(0).random((30, 3))
    assert list(search_c(x, y, seed=0)) == [1e-7, 1e-6, 1e-5, 1e-4, 1e-3]
