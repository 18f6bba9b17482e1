"""Files that get their name when they are whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexkit.errors import OutOfSpace
from alexkit.whole_file import partial_path, whole_file, writing


@pytest.mark.parametrize("unborn", [None, "elsewhere"])
@pytest.mark.parametrize("synced", [True, False])
def test_the_name_comes_last(tmp_path: Path, unborn: str | None, synced: bool) -> None:
    path = tmp_path / "a.txt"
    place = tmp_path / unborn if unborn else partial_path(path)
    path.write_text("old")
    with whole_file(path, unborn and place, synced=synced) as file:
        file.write(b"new")
        assert path.read_text() == "old"
        assert place.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_fails_leaves_the_old_one_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), whole_file(path) as file:  # noqa: PT012 - fails within
        file.write(b"half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_refuses_is_told(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "a.txt"
    told = r"a\.txt cannot be written: No such file"
    with pytest.raises(OutOfSpace, match=told) as caught, writing(path, "x"), whole_file(path):
        pass
    assert caught.value.hint == "x"
