"""What is shown: file names as data, strict JSON, plain lines where there is no terminal."""

from __future__ import annotations

import json
import math
import sys

import pytest

from alexkit.cli.console import Console, shown
from alexkit.events import (
    BadImage,
    Chosen,
    EpochDone,
    GivenUp,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Warned,
    only_the_end,
)
from tests.conftest import Capsys


def test_control_characters_and_markup_are_shown_not_obeyed(capsys: Capsys) -> None:
    console = Console(json=False, quiet=False)
    console.report(BadImage("a\n\x1b[31m[bold]b", "cut", "left out"))
    console.table(["file"], [["[red]x[/red]\x1b]0;t\x07"]])
    told = capsys.readouterr()
    assert "a\\n\\x1b[31m[bold]b" in told.err
    assert "[red]x[/red]\\x1b]0;t\\x07" in told.out
    assert "\x1b" not in told.err + told.out


def test_surrogates_from_odd_file_names_can_be_shown() -> None:
    shown("caf\udce9.jpg").encode("utf-8")


def test_json_lines_are_strict(capsys: Capsys) -> None:
    console = Console(json=True, quiet=False)
    console.report(EpochDone(1, {"loss": math.nan, "top1": 0.5}))
    console.table(["not"], [["shown"]])
    console.finish("train", {"top1": math.inf})
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records == [
        {"event": "epoch_done", "epoch": 1, "values": {"loss": None, "top1": 0.5}},
        {"event": "finished", "command": "train", "result": {"top1": None}},
    ]


def test_quiet_keeps_warnings_and_results(capsys: Capsys) -> None:
    console = Console(json=False, quiet=True)
    console.report(Chosen("device", "cpu", "no GPU found"))
    console.report(StageStarted("features", 10, "images"))
    console.report(StageAdvanced("features", 5))
    console.report(StageFinished("features", 10, 1.0))
    console.report(Warned("careful"))
    console.line("result")
    told = capsys.readouterr()
    assert told.err == "warning: careful\n"
    assert told.out == "result\n"


@pytest.mark.parametrize("json_lines", [False, True])
def test_the_end_of_a_process_is_told_as_an_error(json_lines: bool, capsys: Capsys) -> None:
    console = Console(json=json_lines, quiet=True)
    report = only_the_end(console.report)
    report(Warned("of another rank"))
    report(GivenUp("rank 1 is dead", "the same command continues"))
    told = capsys.readouterr()
    assert told.err == "error: rank 1 is dead\nhint: the same command continues\n"
    assert not told.out


@pytest.mark.parametrize(
    ("listed", "last"),
    [("", "more bad images, not shown here"), ("b.csv", "more bad images: b.csv lists all")],
)
def test_a_flood_of_bad_images_is_cut_short(capsys: Capsys, listed: str, last: str) -> None:
    console = Console(json=False, quiet=False)
    for i in range(100):
        console.report(BadImage(f"{i}.jpg", "cut", "left out", listed))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert lines[-1] == last


def test_tables_fit_80_columns_in_a_pipe(capsys: Capsys) -> None:
    console = Console(json=False, quiet=False)
    console.table(["path", "n"], [["x" * 200, "1"]])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


@pytest.mark.parametrize(("tty", "told"), [(False, "\x1b[31m"), (True, r"\x1b[31m")])
def test_csv_is_exact_in_a_pipe_and_safe_on_a_terminal(
    tty: bool, told: str, capsys: Capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    Console(json=False, quiet=True).csv(["path", "class"], [["\x1b[31m.jpg", "a\nb"]])
    assert capsys.readouterr().out == f'path,class\n{told}.jpg,"a\nb"\n'
