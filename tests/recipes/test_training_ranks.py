"""Training by several processes: as by one, however many there are, whoever stops or dies."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alexkit.training.checkpoint import CheckpointFolder
from tests.conftest import photos_in
from tests.recipes import forked_ranks
from tests.recipes.conftest import ends_of
from tests.recipes.forked_ranks import play
from tests.recipes.test_ranks import PROGRAM, process_of_rank, torchrun, wait_for

# Batch norm, averaged weights and rising resolution, in 2.6 million parameters.
TRAIN = ["train", "photos", "--recipe", "fast", "--head", "gap", "--epochs", "3"]
TRAIN += ["--batch-size", "4", "--lr", "0.001", "--deterministic"]
DATA = [*TRAIN, "--parallel", "data"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, one of them bad."""
    folder = tmp_path_factory.mktemp("training")
    photos_in(folder / "photos", {"train/ant": 6, "train/bee": 7, "val/ant": 3, "val/bee": 2})
    (folder / "photos/train/bee/photo005.jpg").write_bytes(b"<html>")
    return folder


@pytest.fixture(scope="module")
def place(photos: Path) -> Path:
    """The run of one process, and that of two, stopped in its second epoch and continued: by
    two, and by one."""
    free = [word for word in TRAIN if word != "--deterministic"]
    one, two, stopped, again, alone, auto = play(
        photos,
        [
            {"words": [*TRAIN, "--out", "one"]},
            {"words": [*DATA, "--out", "two"], "world": 2},
            {
                "words": [*DATA, "--out", "stopped"],
                "world": 2,
                "stop": "stopped/metrics.csv",
                "copy": ["stopped", "stopped-two"],
            },
            {"words": [*DATA, "--out", "stopped"], "world": 2},
            {"words": [*TRAIN, "--out", "stopped-two"]},
            {"words": [*free, "--epochs", "1", "--out", "auto"], "world": 2},
        ],
    )
    (photos / "auto.txt").write_text(auto["told"][0])
    for scene in (one, two, again, alone, auto):
        assert not any(scene["ends"]), scene
    # Only the second process was told to stop.
    assert stopped["ends"] == [130, 130], stopped
    assert all("error: stopped by " in told for told in stopped["told"])
    assert not two["told"][1], "only the first process reports"
    for scene in (again, alone):
        assert "continuing after epoch 1, batch " in scene["told"][0]
    return photos


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def check_near(folder: Path, other: Path) -> None:
    """Batch norm of four images in float32 magnifies the order of sums from step to step, as it
    does in one process with another number of threads: what is equal is the first epoch.
    tests/training/test_parallel.py compares weights in float64."""
    ours, theirs = rows_of(folder), rows_of(other)
    assert float(ours[0]["train_loss"]) == pytest.approx(
        float(theirs[0]["train_loss"]), rel=1e-3
    )
    for name, tolerance in (("train_loss", 1e-2), ("loss", 1e-2), ("lr", 0.0), ("judged", 0.0)):
        told = [float(row[name]) for row in ours]
        expected = [float(row[name]) for row in theirs]
        # A held-out loss of nearly 0 nats is compared in nats.
        assert told == pytest.approx(expected, rel=tolerance, abs=1e-4 * (name == "loss")), name


def test_two_processes_learn_as_one_does(place: Path) -> None:
    check_near(place / "two", place / "one")
    # Every held-out image once, and the bad image is named, whichever process met it.
    lines = (place / "two/predictions.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines] == [
        line.split(",")[:2] for line in (place / "one/predictions.csv").read_text().splitlines()
    ]
    assert "train/bee/photo005.jpg" in (place / "two/bad_images.csv").read_text()


def test_a_stop_in_mid_epoch_goes_on_to_the_bit(place: Path) -> None:
    assert ends_of(place / "stopped") == ends_of(place / "two")


def test_another_number_of_processes_goes_on_with_the_same_images(place: Path) -> None:
    check_near(place / "stopped-two", place / "two")


def test_auto_takes_what_it_measured_to_be_fastest(place: Path) -> None:
    told = (place / "auto.txt").read_text()
    found = re.search(
        r"parallel: (\w+) \(measured: data (\d+) ms and ([\d.]+) MB.*?"
        r"; single (\d+) ms and 0.0 MB.*; this network has no fc6",
        told,
    )
    assert found is not None, told
    best, data, sent, single = found.groups()
    assert best == min(("data", int(data)), ("single", int(single)), key=lambda one: one[1])[0]
    # Of 1,000 classes it has 2,592,456 parameters; with them, batch norm's sums.
    assert float(sent) == pytest.approx(4e-6 * (2_592_456 - 998 * 257), rel=0.02)
    record = json.loads((place / "auto/run.json").read_text())
    assert record["state"] == "done"
    assert len(rows_of(place / "auto")) == 1


# What follows runs by hand: python -m pytest -m slow tests/recipes/test_training_ranks.py


@pytest.mark.slow
def test_torchrun_stopped_in_mid_epoch_goes_on_to_the_bit(place: Path) -> None:
    words = [*DATA, "--out", "torchrun"]
    with torchrun(words, place) as process:
        wait_for((place / "torchrun/metrics.csv").exists)
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate(timeout=100)
    assert "error: stopped by " in told
    assert "exitcode  : 130" in told or process.returncode
    with torchrun(words, place) as process:
        _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told
    assert ends_of(place / "torchrun") == ends_of(place / "two")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_dead_or_hung_process_is_named_within_a_minute(
    place: Path, number: signal.Signals, rank: int
) -> None:
    out = f"{number.name}-{rank}"
    with torchrun([*DATA, "--out", out], place) as process:
        wait_for((place / out / "metrics.csv").exists)
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
    found = CheckpointFolder(place / out / "state").latest()
    assert found is None or not found.skipped, "what was saved is whole"
    play(place, [{"words": [*TRAIN, "--out", out]}])
    check_near(place / out, place / "two")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_nodes_of_two_processes_are_four_processes(photos: Path) -> None:
    port = forked_ranks.free_port()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node"]
    nodes = ["2", "--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-id", "nodes"]
    nodes += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    for out, agents, where in (("four", 1, ["4", "--standalone"]), ("nodes", 2, nodes)):
        command = [*launch, *where, "--no-python", sys.executable, "-c", PROGRAM]
        started = [
            subprocess.Popen(
                [*command, *DATA, "--out", out],
                cwd=photos,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(agents)
        ]
        told = [agent.communicate(timeout=280)[1] for agent in started]
        assert not any(agent.returncode for agent in started), "\n".join(told)
    assert ends_of(photos / "nodes") == ends_of(photos / "four")
    assert [row["loss"] for row in rows_of(photos / "nodes")] == [
        row["loss"] for row in rows_of(photos / "four")
    ]
    shutil.rmtree(photos / "nodes")
