"""A hundred kills over one extraction of real photos, at moments drawn at random.

Too long for every day: ``pytest -m slow tests/recipes/test_killed.py``, five minutes. What runs
every day kills the writer ten times: ``tests/features/test_kill.py``.
"""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexkit.events import Event, StageAdvanced, StageStarted
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.recipes import features
from alexkit.recipes.options import FeaturesOptions, from_values
from alexkit.whole_file import partial_path

KILLS = 100
COPIES = 6
BATCH = 4
LAYERS = ("conv5", "pool5")
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["alexkit.recipes.features"])  # torch takes seconds to load


@pytest.fixture
def photos(real_data: Path, tmp_path: Path) -> Path:
    """2,400 photos: those of ImageNet's sample, six times."""
    folder = tmp_path / "photos"
    for copy in range(COPIES):
        (folder / str(copy)).mkdir(parents=True)
        for photo in sorted((real_data / "imagenet-sample").glob("*.JPEG")):
            (folder / str(copy) / photo.name).symlink_to(photo)
    return folder


def extraction(settings: dict[str, Any], said: Connection) -> None:
    """A process of its own, which says after each batch how many images are done."""

    def report(event: Event) -> None:
        if isinstance(event, StageStarted | StageAdvanced):
            said.send(event.done)

    features.run(from_values(FeaturesOptions, settings), report)


def run(settings: dict[str, Any], chance: random.Random | None = None) -> tuple[int, int]:
    """Extracts until the end, or until a random moment: one in five falls into the start, the
    others after one to three batches. Returns the last number it said, and its status."""
    hear, say = SERVER.Pipe(duplex=False)
    process = SERVER.Process(target=extraction, args=(settings, say))
    process.start()
    say.close()
    heard: list[int] = []
    lines, wait = None, 0.0
    if chance is not None:  # the first line is where it goes on
        lines = 0 if chance.random() < 0.2 else chance.randrange(2, 5)
        wait = chance.uniform(0, 0.2 if lines else 2)
    with suppress(EOFError):
        while True:
            if len(heard) == lines:
                time.sleep(wait)
                process.kill()
            heard.append(hear.recv())
    process.join()
    assert process.exitcode is not None
    return max(heard, default=0), process.exitcode


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills(real_data: Path, photos: Path, tmp_path: Path) -> None:
    weights = real_data / "weights" / "alexnet-torchvision-features.pth"
    settings = {"data": str(photos), "weights": str(weights), "layer": list(LAYERS)}
    settings |= {"batch_size": BATCH}
    never, out = tmp_path / "never.h5", tmp_path / "F.h5"
    assert run(settings | {"out": str(never)})[1] == 0
    with FeatureStore.open(never) as store:
        truth = {layer: store.values(layer, np.arange(len(store))) for layer in LAYERS}
        whole = store.status.copy(), store.paths, store.labels.copy()
    chance, most = random.Random(2012), 0
    seen = np.zeros(len(whole[0]), bool)
    for _ in range(KILLS):
        said, status = run(settings | {"out": str(out)}, chance)
        assert status == -signal.SIGKILL
        most = max(most, said)
        if not partial_path(out).exists():
            assert not most
            continue
        with FeatureStore.open(partial_path(out)) as store:
            done = store.status != Status.TODO
            assert done.sum() >= most  # no row that it said was done is lost
            assert done[seen].all()
            new = np.flatnonzero((store.status == Status.DONE) & ~seen)
            for layer in LAYERS:
                np.testing.assert_array_equal(store.values(layer, new), truth[layer][new])
            seen = done
    assert 0 < seen.sum() < seen.size
    assert run(settings | {"out": str(out)})[1] == 0
    with FeatureStore.open(out) as store:
        assert store.complete
        np.testing.assert_array_equal(store.status, whole[0])
        assert store.paths == whole[1]
        np.testing.assert_array_equal(store.labels, whole[2])
        for layer in LAYERS:
            found = store.values(layer, np.arange(len(store)))
            np.testing.assert_array_equal(found, truth[layer])
