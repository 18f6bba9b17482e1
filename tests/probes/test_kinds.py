"""Every kind of probe against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from alexkit.choices import ProbeKind
from alexkit.errors import UnknownName
from alexkit.probes.kinds import NEIGHBOURS, fit_probe
from alexkit.probes.metrics import predictions
from tests.probes.conftest import MakeProblem

C = 0.05
THEIRS = {
    "svm": LinearSVC(C=C, tol=1e-8, max_iter=100_000, random_state=0),
    "hinge": LinearSVC(C=C, loss="hinge", max_iter=100_000, random_state=0),
    "logistic": LogisticRegression(C=C, tol=1e-8, max_iter=10_000),
    "ridge": RidgeClassifier(alpha=1 / (2 * C)),
    "knn": KNeighborsClassifier(NEIGHBOURS, metric="cosine"),
}


@pytest.mark.parametrize("kind", [kind.value for kind in ProbeKind])
@pytest.mark.parametrize("n_d_classes", [(60, 90, 4), (90, 20, 3), (60, 90, 2)], ids=str)
def test_predicts_as_scikit_learns(
    make_problem: MakeProblem, kind: str, n_d_classes: tuple[int, int, int]
) -> None:
    x, y = make_problem(*n_d_classes)
    test, _ = make_problem(*n_d_classes, seed=1)
    probe = fit_probe(kind, x, y + 3, C, gap=1e-6)
    theirs = THEIRS[kind].fit(x, y + 3)
    assert probe.labels.tolist() == list(range(3, 3 + n_d_classes[2]))
    scores = probe.scores(test)
    assert scores.shape == (len(test), n_d_classes[2])
    np.testing.assert_array_equal(probe.labels[predictions(scores)], theirs.predict(test))
    if kind == "logistic" and n_d_classes[2] > 2:  # two classes: half the weights on each side
        np.testing.assert_allclose(probe.weights, theirs.coef_, atol=2e-3)  # type: ignore[attr-defined]


def test_no_such_probe() -> None:
    with pytest.raises(UnknownName, match="there is no probe 'svn'"):
        fit_probe("svn", np.eye(2), np.arange(2), 1.0, gap=1e-3)
