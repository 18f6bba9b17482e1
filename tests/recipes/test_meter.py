"""The share of time a reader waits, and what it is told to do about it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from alexkit.events import Event, Warned
from alexkit.images.batches import Batch
from alexkit.images.opening import open_source
from alexkit.recipes import meter as meter_module
from alexkit.recipes import pack
from alexkit.recipes.devices import decode_threads
from alexkit.recipes.meter import Meter
from alexkit.recipes.options import PackOptions
from tests.conftest import MakeFolder


def slow(count: int, seconds: float) -> Iterator[Batch]:
    for _ in range(count):
        time.sleep(seconds)
        one = np.arange(1)
        yield Batch(one, torch.zeros((1, 2, 2, 3)), torch.zeros(1), (), (), one, 1)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meter_module, "SETTLED_AFTER", 0.2)


def watched(
    data: Path, *, threads: int, passes: int, arriving: float, working: float
) -> tuple[float, list[str]]:
    """The share waited, and the warnings."""
    told: list[Event] = []
    meter = Meter(open_source(data), threads, passes, told.append)
    for _ in meter.watch(slow(8, arriving)):
        time.sleep(working)
    return meter.waiting, [event.text for event in told if isinstance(event, Warned)]


def test_a_reader_that_waits_is_told_once(tmp_path: Path, make_folder: MakeFolder) -> None:
    photos = make_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    cores = decode_threads(None)
    share, told = watched(photos, threads=cores, passes=2, arriving=0.06, working=0.02)
    assert 0.6 < share < 0.95
    assert len(told) == 1
    assert "waiting for images: alexkit pack decodes them once" in told[0]
    _, told = watched(photos, threads=cores, passes=1, arriving=0.06, working=0.02)
    assert "more cores would help" in told[0]
    _, told = watched(photos, threads=cores - 1, passes=2, arriving=0.06, working=0.02)
    assert f"--workers {cores}" in told[0]


def test_a_pack_needs_another_disk(tmp_path: Path, make_folder: MakeFolder) -> None:
    photos = make_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    packed = tmp_path / "photos.pack"
    pack.run(PackOptions(data=photos, out=packed, size=8), lambda event: None)
    cores = decode_threads(None)
    _, told = watched(packed, threads=cores, passes=2, arriving=0.06, working=0.02)
    assert "another disk" in told[0]


def test_a_reader_that_is_busy_is_left_alone(tmp_path: Path, make_folder: MakeFolder) -> None:
    photos = make_folder(tmp_path / "photos", {"cat": 2, "dog": 2})
    share, told = watched(photos, threads=1, passes=2, arriving=0.0, working=0.06)
    assert share < 0.1
    assert told == []
