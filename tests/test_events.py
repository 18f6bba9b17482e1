"""What compute reports: a stage from its start to its end."""

from __future__ import annotations

import pytest

from alexkit.events import Event, Stage, StageAdvanced, StageFinished, StageStarted


def test_a_stage_is_told_from_its_start_to_its_end() -> None:
    told: list[Event] = []
    with Stage(told.append, "features", 10, "images", 4) as stage:
        stage.advance(2)
        stage.reach(10, {"loss": 0.5})
    assert told[:3] == [
        StageStarted("features", 10, "images", 4),
        StageAdvanced("features", 6),
        StageAdvanced("features", 10, {"loss": 0.5}),
    ]
    (end,) = told[3:]
    assert isinstance(end, StageFinished)
    assert (end.stage, end.done) == ("features", 10)
    assert 0 <= end.seconds < 60


def test_one_that_an_exception_ends_is_not_finished() -> None:
    told: list[Event] = []
    with pytest.raises(KeyError), Stage(told.append, "pack", 2, "images"):
        raise KeyError
    assert told == [StageStarted("pack", 2, "images")]
