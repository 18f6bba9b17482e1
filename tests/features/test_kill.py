"""A writer that is killed at random moments loses nothing that it said was written."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from alexkit.features.compress import copy_path
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from tests.features import writing_process as truth

ROWS = 3000
KILLS = 10


def run(
    path: Path,
    *words: str,
    kill_after: int | str | None = None,
    file: Path | None = None,
    wait: float = 0.0,
) -> set[int]:
    """Runs a writer and returns the rows it said were written.

    Killed ``wait`` seconds after so many lines, or after the line that says so, if given, and
    after ``file`` is there, if given.
    """
    command = [sys.executable, truth.__file__, str(path), str(ROWS), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line.strip())
            if kill_after in (len(lines), lines[-1]):
                while file and not file.exists() and process.poll() is None:
                    pass
                time.sleep(wait)
                process.kill()
        code = process.wait()
    assert code in (0, -signal.SIGKILL)
    assert code or lines[-1] == "end"
    return {int(word) for line in lines if line[0].isdigit() for word in line.split()}


def check_intact(path: Path, written: set[int]) -> None:
    """Every row that was ever said to be written is there, and right."""
    for place in (path, path.with_name(path.name + ".partial")):
        if place.exists():
            break
    else:
        assert not written
        return
    with FeatureStore.open(place) as store:
        assert store.complete or place != path
        rows = np.array(sorted(written), np.int64)
        bad = rows % truth.UNREADABLE == 0
        np.testing.assert_array_equal(store.status[rows[bad]], Status.UNREADABLE)
        np.testing.assert_array_equal(store.status[rows[~bad]], Status.DONE)
        assert {row: f"number {row} is broken" for row in rows[bad]}.items() <= (
            store.reasons.items()
        )
        for layer in truth.LAYERS:
            done = store.rows()
            np.testing.assert_array_equal(
                store.values(layer, done), truth.true_values(layer, done)
            )
            assert np.isnan(store.values(layer, np.flatnonzero(store.status >= 2))).all()


@pytest.fixture(scope="module")
def never_killed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("never-killed") / "features.h5"
    written = run(path)
    assert written == set(range(ROWS))
    check_intact(path, written)
    return path.read_bytes()


def test_killed_at_random_moments(tmp_path: Path, never_killed: bytes) -> None:
    path = tmp_path / "features.h5"
    chance = random.Random(2012)
    written: set[int] = set()
    for kill in range(KILLS):
        # The first kills fall into the making of the empty file, the others all over.
        lines = 1 if kill < 3 else chance.randrange(2, 60)
        written |= run(path, kill_after=lines, wait=chance.uniform(0, 0.005))
        check_intact(path, written)
        if path.exists():
            break
    assert len(written) > 0
    if not path.exists():
        run(path)
    assert path.read_bytes() == never_killed
    assert list(tmp_path.iterdir()) == [path]


def test_killed_while_the_file_gets_its_name(tmp_path: Path, never_killed: bytes) -> None:
    path = tmp_path / "features.h5"
    for kill in range(4):
        if not path.exists():
            run(path, kill_after="finish", wait=kill * 0.0005)
        check_intact(path, set(range(ROWS)))
    if not path.exists():
        run(path)
    assert path.read_bytes() == never_killed


def test_killed_while_the_file_is_compressed(tmp_path: Path) -> None:
    whole = tmp_path / "whole.h5"
    run(whole, "gzip")
    folder = tmp_path / "killed"
    folder.mkdir()
    path = folder / "features.h5"
    cut_short = 0
    for kill in range(6):
        if not path.exists():
            copy = copy_path(path)
            copy.unlink(missing_ok=True)
            run(path, "gzip", kill_after="finish", file=copy, wait=kill * 0.01)
        cut_short += copy_path(path).exists()
        check_intact(path, set(range(ROWS)))
    assert cut_short, "no kill fell into the copy"
    if not path.exists():
        run(path, "gzip")
    assert path.read_bytes() == whole.read_bytes()
    assert not copy_path(path).exists()
