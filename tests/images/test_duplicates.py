"""Equal files among many: as by reading everything, whatever was found out before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alexkit.events import Event, StageAdvanced, StageFinished, StageStarted, silent
from alexkit.images.duplicates import END, Duplicates, digest, equal_rows, find_duplicates
from alexkit.images.opening import open_source
from alexkit.images.source import SizedSource
from tests.images.archives import tar_bytes

pytestmark = pytest.mark.usefixtures("cache")


def contents() -> dict[str, bytes]:
    """A thousand files of few sizes; some equal, some only in size or only in their ends."""
    rng = np.random.default_rng(0)
    files = {
        f"{n:04d}.jpg": rng.bytes(int(rng.choice([1, 100, 101, END, END + 7, 3 * END])))
        for n in range(1000)
    }
    for n in range(0, 300, 3):
        files[f"{n:04d}.jpg"] = files[f"{999 - n % 60:04d}.jpg"]
    for n in (1, 4, 7):
        files[f"{n:04d}.jpg"] = rng.bytes(END) + bytes(END)
    files["0010.jpg"] = files["0013.jpg"] = b""
    return files


def opened(place: Path, kind: str) -> SizedSource:
    if kind == "tar":
        (place / "x.tar").write_bytes(tar_bytes(contents()))
        place = place / "x.tar"
    else:
        for name, data in contents().items():
            (place / name).write_bytes(data)
    source = open_source(place)
    assert isinstance(source, SizedSource)
    return source


def found_in(source: SizedSource, known: dict[int, bytes] | None = None) -> Duplicates:
    return find_duplicates(source, known=known or {}, threads=2, seconds=60.0, report=silent)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_all_that_are_equal_and_no_others(tmp_path: Path, kind: str) -> None:
    source = opened(tmp_path, kind)
    every = [(row, digest(source.read(row))) for row in range(len(source)) if source.read(row)]
    expected = sorted(equal_rows(every))
    assert len(expected) > 20
    assert found_in(source) == Duplicates(expected, 1000)
    assert found_in(source, dict(every[::2])) == Duplicates(expected, 1000)


def test_what_cannot_be_read_equals_nothing(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / f"{name}.jpg").write_bytes(b"the same")
    source = open_source(tmp_path)
    assert isinstance(source, SizedSource)
    (tmp_path / "b.jpg").unlink()
    assert found_in(source).groups == [[0, 2, 3]]
    for name in ("a", "c", "d"):
        (tmp_path / f"{name}.jpg").unlink()
    assert found_in(source).groups == []


@pytest.mark.parametrize("count", [1, 2])
def test_one_image_and_two(tmp_path: Path, count: int) -> None:
    for n in range(count):
        (tmp_path / f"{n}.jpg").write_bytes(b"x")
    source = open_source(tmp_path)
    assert isinstance(source, SizedSource)
    assert found_in(source) == Duplicates([[0, 1]] if count == 2 else [], count)


def test_the_time_ends_between_two_sizes_and_what_was_compared_is_said(tmp_path: Path) -> None:
    source = opened(tmp_path, "folder")
    events: list[Event] = []
    found = find_duplicates(source, known={}, threads=1, seconds=-1.0, report=events.append)
    # The empty files have no image to compare.
    assert found == Duplicates([], 2)
    assert [type(event) for event in events] == [StageStarted, StageFinished]
    events.clear()
    find_duplicates(source, known={}, threads=1, seconds=60.0, report=events.append)
    steps = [event.done for event in events if isinstance(event, StageAdvanced)]
    assert len(steps) > 2
    assert steps[-1] == 998
