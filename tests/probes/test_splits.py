"""Which rows train and which test."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alexkit.errors import DataError
from alexkit.probes.protocols import protocol_of
from alexkit.probes.splits import Division, divide, inner_folds, stratified_folds

TRAIN, VAL, TEST, NONE = 1, 2, 3, 0
CLASSES = ("ants", "bees", "cats")


def holdout(y: list[int], splits: list[int] | None) -> Division:
    codes = None if splits is None else np.array(splits, np.uint8)
    (division,) = divide(np.array(y), CLASSES, protocol_of("holdout"), splits=codes, seed=0)
    return division


class TestFolds:
    def test_are_balanced_in_every_class_and_altogether(self) -> None:
        y = np.repeat(np.arange(4), [5, 7, 11, 24])
        fold = stratified_folds(y, 5, seed=3)
        for label in range(4):
            counts = np.bincount(fold[y == label], minlength=5)
            assert counts.max() - counts.min() <= 1
        counts = np.bincount(fold)
        assert counts.max() - counts.min() <= 1

    def test_are_a_function_of_the_seed(self) -> None:
        y = np.arange(100) % 3
        first, again, other = (stratified_folds(y, 5, seed) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()

    def test_do_not_follow_the_order_of_the_rows(self) -> None:
        fold = stratified_folds(np.zeros(50, np.int64), 5, seed=0)
        assert (fold != np.arange(50) % 5).sum() > 20

    def test_every_row_is_tested_once_and_never_trained_on_then(self) -> None:
        y = np.arange(31) % 3
        divisions = divide(y, CLASSES, protocol_of("kfold"), splits=None, seed=0)
        assert len(divisions) == 5
        tested = np.concatenate([division.test for division in divisions])
        assert sorted(tested.tolist()) == list(range(31))
        for division in divisions:
            assert sorted([*division.train, *division.test]) == list(range(31))

    def test_a_class_with_fewer_rows_than_folds(self) -> None:
        y = np.array([0] * 10 + [1] * 4)
        with pytest.raises(DataError, match="class 'bees' has 4 rows, fewer than the 5 folds"):
            divide(y, CLASSES, protocol_of("kfold"), splits=None, seed=0)

    def test_inner_folds_fit_the_smallest_class(self) -> None:
        assert inner_folds(np.array([0, 0, 1, 1, 1])) == 2
        assert inner_folds(np.array([0] * 9 + [1] * 9)) == 3


class TestHoldout:
    def test_trains_on_train_and_tests_on_test(self) -> None:
        division = holdout([0, 1, 0, 1, 0, 1, 0], [TRAIN, TRAIN, TRAIN, TRAIN, TEST, VAL, NONE])
        assert division.train.tolist() == [0, 1, 2, 3, 5]
        assert division.val.tolist() == [5]
        assert division.test.tolist() == [4]

    def test_tests_on_val_where_there_is_no_test(self) -> None:
        division = holdout([0, 1, 0, 1, 0], [TRAIN, TRAIN, TRAIN, TRAIN, VAL])
        assert division.test.tolist() == [4]

    @pytest.mark.parametrize(
        ("y", "splits", "message"),
        [
            ([0, 0, 1, 1, 1], None, "'ants' has 2 rows: one is tested, and two must train"),
            ([0, 1], [VAL, TEST], "no labelled row is of a train split"),
            ([0, 1], [TRAIN, TRAIN], "no labelled row is of a val or test split"),
            (
                [0, 0, 1, 1, 2],
                [TRAIN] * 4 + [VAL],
                "'cats' is to be tested but has no training",
            ),
            ([0, 0, 1, 0], [TRAIN] * 3 + [VAL], "'bees' has one training row"),
            ([0, 0, 0], [TRAIN, TRAIN, VAL], "all training rows are of one class, 'ants'"),
        ],
    )
    def test_what_cannot_be_judged(
        self, y: list[int], splits: list[int] | None, message: str
    ) -> None:
        with pytest.raises(DataError, match=message) as refused:
            holdout(y, splits)
        assert refused.value.hint

    def test_without_splits_a_fifth_of_each_class(self) -> None:
        y = [0] * 10 + [1] * 5 + [2] * 3
        division = holdout(y, None)
        assert np.bincount(np.array(y)[division.test]).tolist() == [2, 1, 1]
        assert sorted([*division.train, *division.test]) == list(range(18))

    def test_val_trains_where_the_protocol_has_a_use_for_it(self) -> None:
        codes = np.array([TRAIN, TRAIN, TRAIN, TRAIN, VAL, VAL, TEST, NONE], np.uint8)
        y = np.array([0, 1, 0, 1, 0, 1, 0, 0])
        (own,) = divide(y, CLASSES, protocol_of("clip"), splits=codes, seed=0)
        assert own.train.tolist() == [0, 1, 2, 3, 4, 5]
        assert own.val.tolist() == [4, 5]


class TestFewShot:
    def draw(self, shots: int, **more: int) -> list[Division]:
        y = np.repeat(np.arange(3), [8, 20, 90])
        record = replace(protocol_of("caltech101"), shots=shots)
        return divide(y, CLASSES, record, splits=None, seed=0, **more)

    def test_shots_of_each_class_and_at_most_fifty_others(self) -> None:
        y = np.repeat(np.arange(3), [8, 20, 90])
        parts = self.draw(6)
        assert len(parts) == 5
        for part in parts:
            assert np.bincount(y[part.train]).tolist() == [6, 6, 6]
            assert np.bincount(y[part.test]).tolist() == [2, 14, 50]
            assert not set(part.train) & set(part.test)
        assert (parts[0].train != parts[1].train).any()

    def test_of_a_curve_all_points_have_the_same_test_rows_and_more_training_rows(self) -> None:
        for few, many in zip(self.draw(2, reserve=6), self.draw(6, reserve=6), strict=True):
            assert few.test.tolist() == many.test.tolist()
            assert set(few.train) < set(many.train)

    def test_a_class_with_too_few(self) -> None:
        with pytest.raises(DataError, match="class 'ants' has 8 rows to train on, and 8 shots"):
            self.draw(8)

    def test_a_test_part_of_the_data_is_where_rows_are_tested(self) -> None:
        y = np.arange(30) % 3
        codes = np.where(np.arange(30) < 24, TRAIN, TEST).astype(np.uint8)
        record = replace(protocol_of("few-shot"), shots=4)
        for part in divide(y, CLASSES, record, splits=codes, seed=0):
            assert part.train.max() < 24
            assert part.test.tolist() == list(range(24, 30))
