"""The share of time a reader waits, and what it is told to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
from tests.conftest import Clock, photos_in

Watched = Callable[..., tuple[float, list[str]]]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The share waited, and the warnings, of eight batches, each of which takes so many
    seconds to arrive and to be worked on."""
    clock = Clock()
    monkeypatch.setattr(meter_module, "time", clock)

    def arrive(seconds: float) -> Iterator[Batch]:
        one = np.arange(1)
        for _ in range(8):
            clock.now += seconds
            yield Batch(one, torch.zeros((1, 2, 2, 3)), torch.zeros(1), (), (), one, 1)

    def watch(
        data: Path, *, threads: int, passes: int, arriving: float, working: float
    ) -> tuple[float, list[str]]:
        told: list[Event] = []
        meter = Meter(open_source(data), threads, passes, told.append)
        for _ in meter.watch(arrive(arriving)):
            clock.now += working
        return meter.waiting, [event.text for event in told if isinstance(event, Warned)]

    return watch


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return photos_in(tmp_path / "photos", {"cat": 2, "dog": 2})


def test_a_reader_that_waits_is_told_once(photos: Path, watched: Watched) -> None:
    cores = decode_threads(None)
    share, told = watched(photos, threads=cores, passes=2, arriving=3.0, working=1.0)
    assert share == 0.75
    assert len(told) == 1
    assert "75% of the time goes by waiting for images: alexkit pack decodes them" in told[0]
    _, told = watched(photos, threads=cores, passes=1, arriving=3.0, working=1.0)
    assert "more cores would help" in told[0]
    _, told = watched(photos, threads=cores - 1, passes=2, arriving=3.0, working=1.0)
    assert f"--workers {cores}" in told[0]


def test_a_pack_needs_another_disk(photos: Path, tmp_path: Path, watched: Watched) -> None:
    packed = tmp_path / "photos.pack"
    pack.run(PackOptions(data=photos, out=packed, size=8), lambda event: None)
    cores = decode_threads(None)
    _, told = watched(packed, threads=cores, passes=2, arriving=3.0, working=1.0)
    assert "another disk" in told[0]


def test_a_reader_that_is_busy_or_soon_done_is_left_alone(
    photos: Path, watched: Watched
) -> None:
    assert watched(photos, threads=1, passes=2, arriving=0.1, working=3.0)[1] == []
    # Six batches count, and ten seconds of them.
    assert watched(photos, threads=1, passes=2, arriving=1.0, working=0.5) == (2 / 3, [])
