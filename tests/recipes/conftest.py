"""One folder in which the four commands have been run, shared by the tests that look at it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexkit.cli.app import run
from tests.conftest import photos_in

FOUR_LINES = (
    ["train", "imagenet/", "--epochs", "2", "--batch-size", "4"],
    ["features", "--layer", "fc7", "--layer", "pool5"],
    ["finetune", "mydata/", "--epochs", "2"],
    ["eval"],
)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """The current folder for a while; monkeypatch cannot serve a session's fixture."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def four_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imagenet/, mydata/ and the runs of the four commands."""
    folder = tmp_path_factory.mktemp("four-lines")
    photos_in(
        folder / "imagenet",
        {"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2},
    )
    photos_in(folder / "mydata", {"ant": 5, "bee": 5})
    with working_in(folder), pytest.MonkeyPatch.context() as patch:
        for words in FOUR_LINES:
            # Or the records would hold pytest's own words.
            patch.setattr(sys, "argv", ["alexkit", *words])
            assert run(words) == 0, words
    return folder
