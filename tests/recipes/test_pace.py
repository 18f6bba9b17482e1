"""The time that is left is told when it is known, and once."""

from __future__ import annotations

import time

import pytest

from alexkit.events import Event, Note
from alexkit.recipes.pace import Pace


def test_batches_that_come_together_are_not_taken_for_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two cores, 100 images/s, both batches of 128 ready at the same time."""
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told: list[Event] = []
    pace = Pace(20_500, 500, told.append)
    done = 500
    for round_ in range(1, 9):
        now = 1000.0 + 2.56 * round_
        for _ in range(2):
            done += 128
            pace.tell(done)
        assert len(told) == (round_ >= 2)
    (note,) = told
    assert isinstance(note, Note)
    assert note.text == "19,488 images are left: about 3 minutes at 100.0 images/s"


def test_of_a_short_run_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    told: list[Event] = []
    pace = Pace(100, 0, told.append)
    for done in range(10, 101, 10):
        now += 0.4
        pace.tell(done)
    now = 9.0
    pace.tell(100)
    assert told == []
