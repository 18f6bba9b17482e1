"""The measures, against scikit-learn's and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from alexkit.probes.metrics import (
    area_ap,
    calibration,
    confusion,
    eleven_point_ap,
    mean_class_accuracy,
    per_class,
    predictions,
    top_k,
)


@pytest.fixture(name="scored")
def _scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 200)
    return rng.normal(size=(200, 7)) + 1.5 * np.eye(7)[labels], labels


def test_equal_to_scikit_learn(scored: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = scored
    predicted = predictions(scores)
    table = confusion(labels, predicted, 7)
    np.testing.assert_array_equal(table, reference.confusion_matrix(labels, predicted))
    assert mean_class_accuracy(table) == pytest.approx(
        reference.balanced_accuracy_score(labels, predicted)
    )
    np.testing.assert_allclose(
        per_class(table), reference.recall_score(labels, predicted, average=None)
    )
    for k in range(1, 7):
        assert top_k(scores, labels, k) == pytest.approx(
            reference.top_k_accuracy_score(labels, scores, k=k)
        )
    assert top_k(scores, labels, 7) == top_k(scores, labels, 9) == 1.0


def test_equal_scores_go_to_the_earlier_class() -> None:
    scores = np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, -np.inf, -np.inf]])
    assert predictions(scores).tolist() == [0, 0, 0]
    assert top_k(scores, np.array([0, 1, 2]), 1) == pytest.approx(1 / 3)
    assert top_k(scores, np.array([0, 1, 2]), 2) == pytest.approx(2 / 3)


def test_classes_without_rows_do_not_count() -> None:
    table = confusion(np.array([0, 0, 0, 2]), np.array([0, 0, 1, 1]), 4)
    assert table.tolist() == [[2, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(per_class(table), [2 / 3, np.nan, 0.0, np.nan])
    assert mean_class_accuracy(table) == pytest.approx(1 / 3)


def devkit_ap(scores: np.ndarray, present: np.ndarray, *, year: int) -> float:
    """VOC's devkit, line by line: ``VOCap.m`` of 2010, and ``VOCevalcls.m`` of 2007."""
    order = np.argsort(-scores)
    true = np.cumsum(present[order])
    recall = true / present.sum()
    precision = true / np.arange(1, len(true) + 1)
    if year == 2007:
        points = np.arange(11) / 10
        return sum(max(precision[recall >= t - 1e-12], default=0) / 11 for t in points)
    mrec = np.concatenate([[0], recall, [1]])
    mpre = np.concatenate([[0], precision, [0]])
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    i = np.flatnonzero(mrec[1:] != mrec[:-1]) + 1
    return float(((mrec[i] - mrec[i - 1]) * mpre[i]).sum())


@pytest.mark.parametrize("positives", [1, 3, 10, 40])
def test_average_precision_is_the_devkits(positives: int) -> None:
    rng = np.random.default_rng(positives)
    present = rng.permutation(np.arange(120) < positives)
    scores = rng.normal(size=120) + present
    assert area_ap(scores, present) == pytest.approx(devkit_ap(scores, present, year=2010))
    assert eleven_point_ap(scores, present) == pytest.approx(
        devkit_ap(scores, present, year=2007)
    )


def test_average_precision_that_is_known() -> None:
    present = np.array([True, False, True, False])
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    assert area_ap(scores, present) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert eleven_point_ap(scores, present) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    # Rows of equal score come in together: their order in the file is no merit.
    assert area_ap(np.zeros(4), present) == area_ap(np.zeros(4), present[::-1]) == 0.5
    assert np.isnan(area_ap(scores, np.zeros(4, bool)))
    assert np.isnan(eleven_point_ap(scores, np.zeros(4, bool)))


def test_calibration_of_a_known_case() -> None:
    """Two bins: 0.8 sure and half right, 0.9 sure and always right; 0.8 is on a border
    and counts in the bin below."""
    confidence = np.array([0.8, 0.8, 0.8, 0.8, 0.9, 0.9])
    right = np.array([True, False, True, False, True, True])
    error, bins = calibration(confidence, right)
    assert error == pytest.approx((4 * 0.3 + 2 * 0.1) / 6)
    assert [(b["n"], b["accuracy"]) for b in (bins[11], bins[13])] == [(4, 0.5), (2, 1.0)]
    assert sum(b["n"] for b in bins) == 6
    assert calibration(np.array([1.0, 1.0]), np.array([True, True]))[0] == 0
