"""Training by several processes under torchrun: as by one, whoever is stopped or dies."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexkit.models.weights import file_sha256
from tests.conftest import photos_in
from tests.recipes.test_ranks import process_of_rank, torchrun, wait_for

# Batch norm, averaged weights and rising resolution, in 2.6 million parameters.
TRAIN = ["train", "photos", "--recipe", "fast", "--head", "gap", "--epochs", "3"]
TRAIN += ["--batch-size", "4", "--lr", "0.001", "--parallel", "data", "--deterministic"]
IMAGES = 21


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, one of them bad, and the run of two processes."""
    folder = tmp_path_factory.mktemp("training")
    photos_in(folder / "photos", {"train/ant": 10, "train/bee": 11, "val/ant": 3, "val/bee": 2})
    (folder / "photos/train/bee/photo005.jpg").write_bytes(b"<html>")
    with torchrun([*TRAIN, "--out", "two"], folder) as process:
        _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    return folder


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def ends_of(folder: Path) -> list[str]:
    return [file_sha256(folder / f"weights/{name}.safetensors") for name in ("best", "last")]


def begun(folder: Path) -> bool:
    """Whether the first epoch is done; ten steps are left."""
    return (folder / "metrics.csv").exists()


def alone(folder: Path, out: str) -> None:
    words = [word for word in TRAIN if word not in ("--parallel", "data")]
    program = "from alexkit.cli.app import program; program()"
    subprocess.run(
        [sys.executable, "-c", program, *words, "--out", out],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=200,
    )


def test_two_processes_learn_as_one_does(place: Path) -> None:
    alone(place, "one")
    one, two = rows_of(place / "one"), rows_of(place / "two")
    # Batch norm of four images in float32 magnifies the order of sums from step to step: what
    # is equal is the first epoch. tests/training/test_parallel.py compares weights in float64.
    assert float(two[0]["train_loss"]) == pytest.approx(float(one[0]["train_loss"]), rel=1e-3)
    for name, tolerance in (("train_loss", 1e-2), ("loss", 1e-2), ("lr", 0.0), ("judged", 0.0)):
        told = [float(row[name]) for row in two]
        expected = [float(row[name]) for row in one]
        # A held-out loss of nearly 0 nats is compared in nats.
        assert told == pytest.approx(expected, rel=tolerance, abs=1e-4 * (name == "loss")), name
    # Every held-out image once, and the bad image is named, whichever process met it.
    lines = (place / "two/predictions.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        line.split(",")[:2] for line in (place / "one/predictions.csv").read_text().splitlines()
    ]
    assert "train/bee/photo005.jpg" in (place / "two/bad_images.csv").read_text()


def test_a_launcher_stopped_in_mid_epoch_goes_on_to_the_bit(place: Path) -> None:
    words = [*TRAIN, "--out", "stopped"]
    with torchrun(words, place) as process:
        wait_for(lambda: begun(place / "stopped"))
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=100)
    assert "error: stopped by " in told
    assert "exitcode  : 130" in told or process.returncode
    with torchrun(words, place) as process:
        _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert "continuing after epoch " in told
    assert ends_of(place / "stopped") == ends_of(place / "two")


@pytest.mark.slow  # python -m pytest -m slow tests/recipes/test_training_ranks.py
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_or_hung_process_is_named_within_a_minute(
    place: Path, number: signal.Signals, rank: int
) -> None:
    out = f"{number.name}-{rank}"
    with torchrun([*TRAIN, "--out", out], place) as process:
        wait_for(lambda: begun(place / out))
        os.kill(process_of_rank(process.pid, rank), number)
        began = time.monotonic()
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if f"error: rank {rank} is dead" in line:
                break
        assert time.monotonic() - began < 60, "".join(told)
        assert told[-1].startswith(f"error: rank {rank} is dead"), "".join(told)
        assert "the last file it read is " in told[-1]
        rest = process.stderr.read()
        assert process.wait(timeout=60)
    assert "exitcode  : 7" in rest
    alone(place, out)
    assert len(rows_of(place / out)) == 3
