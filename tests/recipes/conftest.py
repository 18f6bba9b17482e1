"""One folder in which the four commands have been run, shared by the tests that look at it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from alexkit.cli.app import run
from alexkit.models.weights import file_sha256
from tests.conftest import Capsys, photos_in

Refused = Callable[[Sequence[str], int, str], None]
ResultOf = Callable[[Sequence[str]], Any]

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


def ends_of(run: Path) -> list[str]:
    """What a fit leaves, to the byte: the hashes of its best and its last weights."""
    return [file_sha256(run / f"weights/{name}.safetensors") for name in ("best", "last")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capsys: Capsys) -> Refused:
    """``refused(words, status, said)``: a command line ends with this status, says this in one
    error line and one hint line, and nothing on stdout."""

    def check(words: Sequence[str], status: int, said: str) -> None:
        assert run(words) == status, capsys.readouterr().err
        told = capsys.readouterr()
        *_, error, hint = told.err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        assert said in error + hint
        assert told.out == ""

    return check


@pytest.fixture
def result_of(capsys: Capsys) -> ResultOf:
    """``result_of(words)``: what a command line tells with ``--json``."""

    def result(words: Sequence[str]) -> Any:
        assert run([*words, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out.splitlines()[-1])["result"]

    return result


@pytest.fixture(scope="session")
def four_lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imagenet/, mydata/ and the runs of the four commands."""
    folder = tmp_path_factory.mktemp("four-lines")
    photos_in(folder / "imagenet", {"train/cat": 4, "train/dog": 4, "val/cat": 2, "val/dog": 2})
    photos_in(folder / "mydata", {"ant": 5, "bee": 5})
    with working_in(folder), pytest.MonkeyPatch.context() as patch:
        for words in FOUR_LINES:
            # Or the records would hold pytest's own words.
            patch.setattr(sys, "argv", ["alexkit", *words])
            assert run(words) == 0, words
    return folder
