"""A hundred kills over one extraction of real photos, at moments drawn at random.

Too long for every day (about ten minutes): ``pytest -m slow tests/recipes/test_killed.py``.
The tests that CI runs kill the writer ten times: ``tests/features/test_kill.py``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alexkit.features.layout import Status, partial_path
from alexkit.features.store import FeatureStore

KILLS = 100
COPIES = 8
BATCH = 8
LAYERS = ("conv5", "pool5")
PROGRAM = "from alexkit.cli.app import program; program()"


@pytest.fixture
def photos(real_data: Path, tmp_path: Path) -> Path:
    """3,200 photos: those of ImageNet's sample, eight times."""
    folder = tmp_path / "photos"
    for copy in range(COPIES):
        (folder / str(copy)).mkdir(parents=True)
        for photo in sorted((real_data / "imagenet-sample").glob("*.JPEG")):
            (folder / str(copy) / photo.name).symlink_to(photo)
    return folder


def extraction(photos: Path, weights: Path, out: Path) -> list[str]:
    words = ["features", str(photos), "--weights", str(weights), "--out", str(out), "--json"]
    layers = [word for layer in LAYERS for word in ("--layer", layer)]
    return [sys.executable, "-c", PROGRAM, *words, *layers, "--batch-size", str(BATCH)]


def killed(command: list[str], chance: random.Random) -> tuple[int, int]:
    """Runs it until a random moment; returns the rows it said were done, and its status.

    Every fifth kill falls into its start, the others within its first dozen batches.
    """
    batches = 0 if chance.random() < 0.2 else chance.randrange(1, 12)
    after = chance.uniform(0, 4 if not batches else 0.2)
    said = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if not batches:
            time.sleep(after)
            process.kill()
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "stage_started":
                said = max(said, event["done"])
            if event["event"] == "stage_advanced":
                said, batches = event["done"], batches - 1
                if not batches:
                    time.sleep(after)
                    process.kill()
        return said, process.wait()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_kills(real_data: Path, photos: Path, tmp_path: Path) -> None:
    weights = real_data / "weights" / "alexnet-torchvision-features.pth"
    never = tmp_path / "never.h5"
    subprocess.run(extraction(photos, weights, never), check=True, stdout=subprocess.PIPE)
    with FeatureStore.open(never) as store:
        truth = {layer: store.values(layer, np.arange(len(store))) for layer in LAYERS}
        whole = store.status.copy(), store.paths, store.labels.copy()
    out = tmp_path / "F.h5"
    command = extraction(photos, weights, out)
    chance, said, kept = random.Random(2012), 0, 0
    for _ in range(KILLS):
        now, status = killed(command, chance)
        assert status == -signal.SIGKILL
        said = max(said, now)
        if not partial_path(out).exists():
            assert not said
            continue
        with FeatureStore.open(partial_path(out)) as store:
            done = store.rows()
            assert (store.status != Status.TODO).sum() >= max(said, kept)
            kept = len(done)
            for layer in LAYERS:
                np.testing.assert_array_equal(store.values(layer, done), truth[layer][done])
    assert 0 < kept < len(whole[0])
    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=dict(os.environ))
    with FeatureStore.open(out) as store:
        assert store.complete
        np.testing.assert_array_equal(store.status, whole[0])
        assert store.paths == whole[1]
        np.testing.assert_array_equal(store.labels, whole[2])
        for layer in LAYERS:
            found = store.values(layer, np.arange(len(store)))
            np.testing.assert_array_equal(found, truth[layer])
