"""Stopped by a real signal in a real process; the same command ends as if never stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from alexkit.models.weights import file_sha256
from alexkit.recipes.run_dir import read_record
from tests.conftest import photos_in
from tests.recipes.conftest import working_in

PROGRAM = "from alexkit.cli.app import program; program()"
FEATURES = [
    "features",
    "photos",
    "--weights",
    "random",
    "--model",
    "alexnet-owt",
    "--batch-size",
    "2",
]
# alexnet-bn has dropout, running statistics and a schedule: all of it must be continued.
TRAIN = [
    "train",
    "photos",
    "--model",
    "alexnet-bn",
    "--epochs",
    "4",
    "--batch-size",
    "4",
    "--lr",
    "0.01",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopped")
    photos_in(folder / "photos", {"train/ant": 10, "train/bee": 10, "val/ant": 2, "val/bee": 2})
    return folder


def stopped(words: list[str], folder: Path, sign: str, number: signal.Signals) -> int:
    """Runs a command line until ``sign`` is in a line of its stderr, then sends a signal.

    The console tells a stage's beginning at once, so the work has just begun.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        # Sums depend on how many threads share them, so both processes must have as many.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    with child.stderr as lines:
        for line in lines:
            if sign in line:
                child.send_signal(number)
                break
        rest = lines.read()
    status = child.wait(timeout=60)
    if number != signal.SIGKILL:
        *_, error, hint = rest.splitlines()
        assert error.startswith(f"error: stopped by {number.name}; ")
        assert hint.startswith("hint: the same command continues")
    return status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_training_continues_to_the_same_weights(place: Path, number: signal.Signals) -> None:
    out = f"train-{number.name}"
    status = stopped([*TRAIN, "--out", out], place, "epoch 2/4", number)
    assert status == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    state = read_record(place / out)["state"]
    assert state == ("interrupted" if number == signal.SIGTERM else "running")
    with working_in(place):
        assert run([*TRAIN, "--out", out]) == 0
        if not Path("never-stopped").exists():
            assert run([*TRAIN, "--out", "never-stopped"]) == 0
    for name in ("weights/best.safetensors", "weights/last.safetensors"):
        assert file_sha256(place / out / name) == file_sha256(place / "never-stopped" / name)
    losses = [
        [
            line.split(",")[2:7]
            for line in (place / which / "metrics.csv").read_text().splitlines()
        ]
        for which in (out, "never-stopped")
    ]
    assert losses[0] == losses[1]


def test_features_continue_to_the_same_file(place: Path) -> None:
    status = stopped([*FEATURES, "--out", "F.h5"], place, "features: 24 images", signal.SIGINT)
    assert status == 130
    assert (place / "F.h5.partial").exists()
    assert not (place / "F.h5").exists()
    with working_in(place):
        assert run([*FEATURES, "--out", "F.h5"]) == 0
        assert run([*FEATURES, "--out", "G.h5"]) == 0
    with FeatureStore.open(place / "F.h5") as one, FeatureStore.open(place / "G.h5") as other:
        assert one.paths == other.paths
        assert (one.matrix("fc7") == other.matrix("fc7")).all()


def test_other_settings_are_refused_by_name(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped([*FEATURES, "--out", "H.h5"], place, "features: 24 images", signal.SIGKILL)
    with working_in(place):
        assert run([*FEATURES, "--out", "H.h5", "--seed", "1"]) == 4
        assert "weights" in capsys.readouterr().err.splitlines()[-2]
        assert run([*FEATURES, "--out", "H.h5"]) == 0
