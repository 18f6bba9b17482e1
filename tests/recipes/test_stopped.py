"""Stopped by a real signal in a real process; the same command ends as if never stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from alexkit.models.weights import file_sha256
from alexkit.recipes.run_dir import read_record
from tests.conftest import photos_in
from tests.recipes import killed_training
from tests.recipes.conftest import ends_of, working_in
from tests.recipes.struck import struck

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ["features", "photos", "--weights", "random", "--model", "squeezenet1_1"]
FEATURES += ["--layer", "flatten", "--batch-size", "2"]
# It has running statistics, an average of the weights and a schedule: all of it must be
# continued, as dropout is in tests/training/test_restart.py. 2.6 million parameters are saved
# in a moment.
TRAIN = ["train", "photos", "--model", "alexnet-bn", "--head", "gap", "--epochs", "2"]
TRAIN += ["--batch-size", "4", "--lr", "0.01"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    photos_in(folder / "photos", {"train/ant": 10, "train/bee": 10, "val/ant": 2, "val/bee": 2})
    return folder


def stopped(words: list[str], folder: Path, says: str, number: signal.Signals) -> None:
    """Runs a command line until it says something; it ends as one that was told to stop."""
    child = struck(words, says, number, folder)
    assert child.returncode == 130
    *_, error, hint = child.stderr.splitlines()
    assert error.startswith(f"error: stopped by {number.name}; ")
    assert hint.startswith("hint: the same command continues")


def test_training_continues_to_the_same_weights(place: Path) -> None:
    out = "train"
    stopped([*TRAIN, "--out", out], place, "epoch 2/2", signal.SIGTERM)
    assert read_record(place / out)["state"] == "interrupted"
    with working_in(place):
        assert run([*TRAIN, "--out", out]) == 0
        assert run([*TRAIN, "--out", "never-stopped"]) == 0
    assert ends_of(place / out) == ends_of(place / "never-stopped")
    losses = [
        [
            line.split(",")[2:7]
            for line in (place / which / "metrics.csv").read_text().splitlines()
        ]
        for which in (out, "never-stopped")
    ]
    assert losses[0] == losses[1]


def killed(folder: Path, kills: int, words: dict[str, object]) -> str:
    """Runs ``killed_training`` into folders "killed" and "whole"; what it printed."""
    command = ["killed", str(kills), "0", json.dumps(words), "whole"]
    done = subprocess.run(
        [sys.executable, "-m", killed_training.__name__, *command],
        cwd=folder,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def same_end(one: Path, other: Path) -> None:
    """Weights and the last checkpoint, with its momentum, are equal to the byte."""
    assert ends_of(one) == ends_of(other)
    last = max((one / "state").glob("step-*.safetensors"))
    assert file_sha256(last) == file_sha256(other / "state" / last.name)


def test_ten_kills_at_random_moments_change_nothing(place: Path) -> None:
    photos_in(place / "few", {"train/ant": 4, "train/bee": 4, "val/ant": 1, "val/bee": 1})
    words = {"data": "few", "model": "alexnet-bn", "head": "gap", "epochs": 6}
    words |= {"batch_size": 2, "lr": 0.01}
    told = killed(place, 10, words)
    assert told.count("kill") == 10
    assert "step-" in told, "no checkpoint was ever continued"
    same_end(place / "killed", place / "whole")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_kills_of_a_run_on_real_photos(real_data: Path, tmp_path: Path) -> None:
    """``pytest -m slow tests/recipes/test_stopped.py``: minutes on two cores."""
    words = {"data": str(real_data / "hymenoptera"), "model": "alexnet-bn", "head": "gap"}
    words |= {"epochs": 10, "batch_size": 32, "lr": 0.01}
    told = killed(tmp_path, 30, words)
    assert told.count("kill") == 30
    same_end(tmp_path / "killed", tmp_path / "whole")


def test_features_continue_to_the_same_file(place: Path) -> None:
    stopped([*FEATURES, "--out", "F.h5"], place, "features: 24 images", signal.SIGINT)
    assert (place / "F.h5.partial").exists()
    assert not (place / "F.h5").exists()
    with working_in(place):
        assert run([*FEATURES, "--out", "F.h5"]) == 0
        assert run([*FEATURES, "--out", "G.h5"]) == 0
    with FeatureStore.open(place / "F.h5") as one, FeatureStore.open(place / "G.h5") as other:
        assert one.paths == other.paths
        assert (one.matrix("flatten") == other.matrix("flatten")).all()
