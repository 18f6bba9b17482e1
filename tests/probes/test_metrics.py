"""The measures, against scikit-learn's and against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from alexkit.probes.metrics import (
    confusion,
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
