"""Rows over several splits, against counting by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alexkit.probes.outcomes import margins, outcomes
from alexkit.probes.protocol import judge_layer, single_task
from alexkit.probes.protocols import protocol_of


def test_margins_by_hand() -> None:
    scores = np.array([[2.0, 1.0, -3.0], [2.0, 1.0, -3.0], [-np.inf, 4.0, 4.0]])
    assert margins(scores, np.array([0, 2, 0])).tolist() == [1.0, -5.0, -np.inf]
    assert margins(scores, np.array([0, 0, 2])).tolist() == [1.0, 1.0, 0.0]


def test_each_row_over_its_splits() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    x = rng.normal(0, 1, (60, 20)) + rng.normal(0, 0.5, (3, 20))[y]
    record = replace(protocol_of("few-shot"), shots=10)
    task = single_task(y, ("a", "b", "c"), record, splits=None, seed=0)
    found = judge_layer(x, task)
    told = outcomes(found.splits, 60)
    assert told is not None
    for row in range(60):
        here = [s for s in found.splits if row in s.division.test]
        at = [int(np.flatnonzero(s.division.test == row)[0]) for s in here]
        assert told.tested[row] == len(here)
        if not here:
            assert told.predicted[row] == told.first[row] == -1
            assert np.isnan(told.margin[row])
            continue
        each = [float(s.margin[i]) for s, i in zip(here, at, strict=True)]  # type: ignore[index]
        assert told.margin[row] == pytest.approx(np.mean(each))
        assert told.right[row] == sum(value > 0 for value in each)
        assert told.first[row] == (each[0] > 0)
        worst = int(np.argmin(each))
        assert told.predicted[row] == here[worst].predicted[at[worst]]  # type: ignore[index]
    assert 0 < told.right.sum() < told.tested.sum()
