"""Several processes under torchrun write the file that one process writes, whoever dies."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from alexkit.cli.app import run
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import working_in
from tests.recipes.forked_ranks import play

PROGRAM = "from alexkit.cli.app import main; main()"
PHOTOS = 48
FEATURES = [
    *("features", "photos", "--weights", "random", "--model", "squeezenet1_1"),
    *("--layer", "features.0", "--layer", "flatten", "--pool", "avg", "--views", "grid:2"),
    *("--batch-size", "2"),
]
OF_THE_RUN = {"ranks", "command_line", "started", "ended"}
"""What the provenance may tell of how the file came about."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, some of them bad, and their features by one process."""
    folder = tmp_path_factory.mktemp("ranks")
    photos_in(folder / "photos", {"ant": PHOTOS // 2, "bee": PHOTOS // 2})
    bees = sorted((folder / "photos/bee").iterdir())
    # Of each rank one that is bad and one that is converted.
    for bad in (3, 12):
        bees[bad].write_bytes(b"<html>")
    for odd in (6, 9):
        Image.open(bees[odd]).convert("CMYK").save(bees[odd])
    with working_in(folder):
        assert run([*FEATURES, "--out", "one.h5"]) == 0
    return folder


@contextmanager
def torchrun(words: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launch, "--nproc-per-node", "2", "--no-python", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        [*command, *words],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(condition: Callable[[], bool], seconds: float = 200.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came about"
        time.sleep(0.02)


def rows_done(path: Path) -> int:
    """Of a file that another process is writing."""
    if not path.exists():
        return 0
    with h5py.File(path, "r", locking=False) as file:
        return int((file["rows/status"][:] == Status.DONE).sum())


def process_of_rank(launcher: int, rank: int) -> int:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == launcher and f"RANK={rank}" in (
                (entry / "environ").read_text().split("\0")
            ):
                found.append(int(entry.name))
        except (OSError, ValueError, IndexError):
            continue
    (process,) = found
    return process


def check_equal(one: Path, other: Path) -> None:
    with h5py.File(one) as a, h5py.File(other) as b:
        names: list[str] = []
        a.visit(names.append)
        there: list[str] = []
        b.visit(there.append)
        names = [name for name in names if not name.startswith("parts")]
        assert names == there
        for name in names:
            if isinstance(a[name], h5py.Dataset):
                assert a[name].dtype == b[name].dtype
                np.testing.assert_array_equal(a[name][:], b[name][:])
        texts = [json.loads(file.attrs["provenance"]) for file in (a, b)]
        told = [{k: v for k, v in text.items() if k not in OF_THE_RUN} for text in texts]
        assert told[0] == told[1]
        assert dict(a.attrs).keys() == dict(b.attrs).keys()


def done_already(capsys: Capsys) -> int:
    """What a command that goes on says of how far it was."""
    told = re.search(r"features: \d+ images, (\d+) done already", capsys.readouterr().err)
    assert told is not None
    return int(told[1])


def test_two_ranks_make_the_file_of_one_process(place: Path) -> None:
    with torchrun([*FEATURES, "--out", "run"], place) as process:
        out, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    check_equal(place / "run/features.h5", place / "one.h5")
    assert out.count("flatten") == 1, "only rank 0 shows the result"
    ledger = (place / "run/bad_images.csv").read_text()
    assert [len(re.findall(f"photo{bad:03d}.jpg,", ledger)) for bad in (3, 6, 9, 12)] == [1] * 4
    left = {entry.name for entry in (place / "run").iterdir()}
    assert left == {"features.h5", "bad_images.csv", "report.html", "run.json", "state"}


def test_a_dead_rank_is_named_and_its_rows_are_kept(place: Path, capsys: Capsys) -> None:
    part = place / "killed.h5.part-1-of-2.partial"
    with torchrun([*FEATURES, "--out", "killed.h5"], place) as process:
        wait_for(part.exists)
        victim = process_of_rank(process.pid, 1)
        wait_for(lambda: rows_done(part) >= 2)
        os.kill(victim, signal.SIGKILL)
        _, told = process.communicate(timeout=200)
    assert told.count("error: rank 1 is dead") == 1
    assert re.search(r"rank +: 0 .*\n +exitcode +: 7 ", told)
    kept = rows_done(part) + rows_done(place / "killed.h5.partial")
    assert 2 <= kept < PHOTOS - 2
    with working_in(place):
        capsys.readouterr()
        assert run([*FEATURES, "--out", "killed.h5"]) == 0
    assert done_already(capsys) >= kept
    check_equal(place / "killed.h5", place / "one.h5")
    assert not list(place.glob("killed.h5.*"))


@pytest.fixture(scope="module")
def played(place: Path) -> list[dict[str, Any]]:
    """Two processes of which one is told to stop, with one file and with parts; those with
    parts are started again."""
    virtual = [*FEATURES, "--merge", "virtual", "--out", "virtual.h5"]
    stop = "{}.h5.part-1-of-2.partial".format
    stopped = {"words": [*FEATURES, "--out", "stopped.h5"], "stop": stop("stopped")}
    scenes = [stopped, {"words": virtual, "stop": stop("virtual")}, {"words": virtual}]
    return play(place, [scene | {"world": 2} for scene in scenes])


def test_all_are_stopped_and_go_on(place: Path, played: list[dict[str, Any]]) -> None:
    for scene in played[:2]:
        assert scene["ends"] == [130, 130], scene["told"]
        assert "error: stopped by SIGTERM" in scene["told"][1]
        assert "is dead" not in scene["told"][0]
    with working_in(place):
        assert run([*FEATURES, "--out", "stopped.h5"]) == 0
    check_equal(place / "stopped.h5", place / "one.h5")
    with FeatureStore.open(place / "stopped.h5") as store:
        assert (store.status == Status.UNREADABLE).sum() == 2


def test_parts_that_stay_read_as_the_file_of_one_process(
    place: Path, played: list[dict[str, Any]], capsys: Capsys
) -> None:
    words = [*FEATURES, "--merge", "virtual", "--out"]
    assert played[2]["ends"] == [0, 0], played[2]["told"]
    check_equal(place / "virtual.h5", place / "one.h5")
    with FeatureStore.open(place / "virtual.h5") as store:
        parts = store.parts
        assert {"virtual.h5.part-2-of-4", "virtual.h5.part-3-of-4"} <= {p.name for p in parts}
    assert sorted(place.glob("virtual.h5*")) == sorted([place / "virtual.h5", *parts])
    with working_in(place):
        capsys.readouterr()
        assert run(["info", "virtual.h5", "--verify", "3"]) == 0
        assert "virtual.h5.part-3-of-4, beside it" in " ".join(capsys.readouterr().out.split())
        # Its command extracts what is gone, by one process too, and leaves the rest.
        parts[-1].unlink()
        assert run(["info", "virtual.h5"]) == 4
        (place / "virtual.h5").unlink()
        assert run([*words, "virtual.h5"]) == 0
        assert 0 < done_already(capsys) < PHOTOS
        check_equal(place / "virtual.h5", place / "one.h5")
        # A file that holds its rows itself leaves no parts in its place.
        whole = [*FEATURES, "--compress", "gzip", "--overwrite", "--out", "virtual.h5"]
        assert run(whole) == 0
        assert list(place.glob("virtual.h5*")) == [place / "virtual.h5"]


def test_one_process_has_nothing_to_merge(place: Path, capsys: Capsys) -> None:
    with working_in(place):
        words = [*FEATURES[:6], "--layer", "flatten", "--merge", "virtual", "--out", "alone.h5"]
        assert run(words) == 0
        assert "nothing to merge" in capsys.readouterr().err
        with FeatureStore.open(place / "alone.h5") as store:
            assert not store.parts
