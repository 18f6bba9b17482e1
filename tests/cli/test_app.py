"""The command line itself: help without torch, one error boundary, configuration files."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from alexkit import errors
from alexkit.cli.app import app, as_ours, run
from tests.conftest import Capsys

COMMANDS = [command.name for command in app.registered_commands]


def test_help_of_every_command_loads_nothing_heavy() -> None:
    script = (
        "import sys; from alexkit.cli.app import run\n"
        f"for words in [[], *([c] for c in {COMMANDS!r})]:\n"
        "    assert run([*words, '--help']) == 0\n"
        "heavy = {'torch', 'numpy', 'sklearn', 'h5py', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert done.stdout.count("Example: alexkit") == len(COMMANDS) == 15
    assert '"alexkit[umap]"' in done.stdout, "what is in brackets was taken for markup"


def test_version(capsys: Capsys) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("alexkit 0.")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "no such command 'trian'"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--epochs", "three"], "--epochs"),
        (["train", "--epochs", "0"], "--epochs 0 is too small"),
        (["train", "--lr", "nan"], "--lr nan is too small"),
        (["train", "--max-time", "inf"], "--max-time inf is too large"),
        (["check", "--workers", "99999999999999999999"], "is too large"),
        (["finetune", "--smoothing", "1.5"], "--smoothing 1.5 is too large"),
        (["train", "--seed", "4294967296"], "--seed 4294967296 is too large"),
        (["features", "--dtype", "int8"], "int8"),
    ],
)
def test_wrong_usage_is_two_lines_and_status_2(
    words: list[str], said: str, capsys: Capsys
) -> None:
    assert run(words) == 2
    told = capsys.readouterr()
    assert told.out == ""
    first, second = told.err.splitlines()
    assert first.startswith("error: ")
    assert said in first
    assert second.startswith("hint: ")


class TestConfig:
    @pytest.fixture
    def config(self, tmp_path: Path) -> Callable[[str], list[str]]:
        """The words that name a configuration file of this text."""

        def config(text: str) -> list[str]:
            (tmp_path / "c.toml").write_text(text)
            return ["--config", str(tmp_path / "c.toml")]

        return config

    @pytest.mark.parametrize(
        ("text", "status", "said"),
        [
            ("epoch = 3\n", 2, "did you mean epochs?"),
            ("epochs = = 3", 3, "is no TOML"),
            ("epochs = " + "[" * 100_000, 3, "is no TOML"),
            ("epochs = 'three'", 2, "epochs"),
            ("[train]\nepochs = 3", 2, "train"),
            ("out = ['runs']", 2, "out in"),
        ],
        ids=["unknown", "no TOML", "endless nesting", "text", "a table", "a list"],
    )
    def test_nonsense_is_refused(
        self,
        config: Callable[[str], list[str]],
        text: str,
        status: int,
        said: str,
        capsys: Capsys,
    ) -> None:
        assert run(["train", "x", *config(text)]) == status
        told = capsys.readouterr().err
        assert told.startswith("error: ")
        assert said in told

    @pytest.mark.parametrize("value", ["2004-05-27", "9223372036854775807", "[[1]]", "1e400"])
    @pytest.mark.parametrize("option", ["quiet", "epochs", "out", "device", "parallel"])
    def test_a_value_of_another_kind_is_no_bug(
        self,
        config: Callable[[str], list[str]],
        option: str,
        value: str,
        tmp_path: Path,
        capsys: Capsys,
    ) -> None:
        nothing = str(tmp_path / "there is nothing")
        assert run(["train", nothing, *config(f"{option} = {value}\n")]) in (2, 3)
        assert "a bug" not in capsys.readouterr().err

    def test_a_file_without_an_end_is_refused(self, capsys: Capsys) -> None:
        assert run(["check", "x", "--config", "/dev/zero"]) == 3
        assert "too long" in capsys.readouterr().err

    def test_the_command_line_wins(
        self, config: Callable[[str], list[str]], tmp_path: Path, capsys: Capsys
    ) -> None:
        (tmp_path / "data").mkdir()
        of_file = config('device = "nonsense-from-file"\nlayer = ["fc6"]\n')
        words = ["features", str(tmp_path / "data"), *of_file]
        for more, said in (([], "nonsense-from-file"), (["--device", "typed"], "typed")):
            assert run([*words, *more]) == 2
            assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("problem", "status"),
    [
        (errors.UnknownName("layer", "fc9", ["fc7"]), 2),
        (errors.UnreadableImage("x", hint="y"), 3),
        (errors.DamagedFile("x", hint="y"), 4),
        (OSError(errno.ENOSPC, "no space"), 5),
        (PermissionError(errno.EACCES, "denied", "file"), 5),
        (FileNotFoundError(errno.ENOENT, "gone", "file"), 3),
        (FileExistsError(errno.EEXIST, "there", "file"), 2),
        (NotADirectoryError(errno.ENOTDIR, "no folder", "/dev/full/state"), 2),
        (OSError(errno.ELOOP, "too many links", "loop"), 2),
        (MemoryError(), 5),
        (errors.Diverged("x", hint="y"), 6),
        (errors.WorkerFailed("x", hint="y"), 7),
        (errors.Interrupted("x", hint="y"), 130),
    ],
)
def test_every_problem_has_its_exit_status(problem: Exception, status: int) -> None:
    ours = as_ours(problem)
    assert ours is not None
    assert ours.exit_status == status
    assert ours.message
    assert ours.hint


def test_a_bug_is_not_dressed_up() -> None:
    assert as_ours(ZeroDivisionError()) is None


def test_json_puts_nothing_but_json_on_stdout(
    monkeypatch: pytest.MonkeyPatch, capsys: Capsys, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    assert run(["doctor", "--json", "--out", str(tmp_path / "D.json")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "finished"
    assert json.loads((tmp_path / "D.json").read_text()) == lines[-1]["result"]
    assert not torch.backends.cudnn.allow_tf32, "golden values are of float32"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize(
    ("stream", "words", "status"), [("stdout", ["--version"], 5), ("stderr", ["trian"], 2)]
)
def test_a_disk_that_is_full_under_the_output_is_no_bug(
    stream: str, words: list[str], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115 - closing it fails
    monkeypatch.setattr(sys, stream, full)
    assert run(words) == status
    with suppress(OSError):
        full.close()
