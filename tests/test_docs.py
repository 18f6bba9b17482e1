"""The manual is true: its commands exist, its transcripts are what the program prints.

In README.md and ``docs/`` every ``alexkit …`` line, in a block or within a sentence, is parsed
by the real command line, and every ``--option`` named is one. Blocks marked ``console`` are
transcripts: they are run, in the order of the pages below, in one folder with two sets of
digits, and compared line by line, numbers apart; a line ``…`` stands for any lines. Blocks
marked ``python`` are run there as well, those marked ``text`` are only shown.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import typer

from alexkit.cli import app
from alexkit.recipes.demo import write_digits
from tests.recipes.conftest import working_in

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
RUN_FIRST = ("tutorial", "pack")
"""Pages whose transcripts leave what those of other pages begin with."""

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`")
OF_OTHER_PROGRAMS = {
    "--standalone",  # torchrun
    "--nproc-per-node",
    "--no-python",
    "--show-completion",  # of every program made with Typer, as is the next
    "--install-completion",
}
COMMAND = typer.main.get_command(app.app)
COMMANDS: dict[str, Any] = COMMAND.commands  # type: ignore[attr-defined]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", paths, ids=name_of)


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return FENCE.findall(page.read_text(encoding="utf-8"))


def inline(page: Path) -> list[str]:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in INLINE.findall(prose)]


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words behind ``alexkit`` of every command line; ``a|b`` is two lines."""
    lines = [
        line.removeprefix("$ ")
        for _, text in blocks(page)
        for line in re.sub(r"\\\n\s*", "", text).splitlines()
    ]
    for line in [*lines, *inline(page)]:
        before, found, rest = line.strip().partition("alexkit ")
        if not found or (before and not before.startswith("torchrun ")):
            continue
        if not (rest[:1] == "-" or rest.split()[0] in COMMANDS):
            continue  # a sentence in a transcript, or `alexkit …`
        words = shlex.split(rest, comments=True)
        alternatives = [word.split("|") for word in words if word != "…"]
        yield from (list(line) for line in product(*alternatives))


@each(PAGES)
def test_every_command_line_parses(page: Path) -> None:
    for words in command_lines(page):
        if words[0].startswith("-"):
            known = {name for p in COMMAND.params for name in p.opts} | {"-h", "--help"}
            assert words[0] in known
            continue
        command = COMMANDS[words[0]]
        given = [word for word in app._numbered(words)[1:] if word not in ("-h", "--help")]
        command.make_context(words[0], given)  # raises where a word is no option or choice


@each(PAGES)
def test_every_option_exists(page: Path) -> None:
    known = {n for c in COMMANDS.values() for p in c.params for n in p.opts}
    known |= OF_OTHER_PROGRAMS | {"--help", "--version"}
    for code in inline(page):
        if code.startswith(("python", "pip ")):
            continue
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", code):
            assert option in known, f"`{code}`"


@each(PAGES)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"https?:|#", target):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_every_command_has_a_page_in_the_index() -> None:
    pages = {path.stem for path in (DOCS / "commands").glob("*.md")}
    assert pages == set(COMMANDS)
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    for page in set(DOCS.rglob("*.md")) - {DOCS / "README.md"}:
        assert f"({page.relative_to(DOCS).as_posix()})" in index


def masked(line: str) -> str:
    """A line without what differs from machine to machine and from day to day."""
    line = re.sub(r"\b[0-9a-f]{12,}\b", "HASH", line)
    line = re.sub(r"\d[\d.,:]*(e[-+]?\d+)?( [kMG]?B\b)?", "0", line)
    line = re.sub(r"[-─━]{3,}", "---", line)
    return " ".join(line.split())


def same(shown: str, printed: str) -> bool:
    """Whether a transcript is what was printed, numbers apart."""
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else re.escape(masked(line)) + "\n"
        for line in shown.splitlines()
        if line.strip()
    )
    lines = [masked(line) + "\n" for line in printed.splitlines() if line.strip()]
    return re.fullmatch(pattern, "".join(lines)) is not None


def transcripts(page: Path) -> Iterator[tuple[str, str]]:
    """(command, what is shown below it) of the ``console`` blocks of a page."""
    for language, text in blocks(page):
        if language == "console":
            assert text.startswith("$ "), f"{name_of(page)}: a transcript begins with $"
            for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                command, _, shown = re.sub(r"\\\n\s*", "", part).partition("\n")
                yield command, shown


def typed(command: str, last_status: int) -> tuple[int, str]:
    """Status and output, both streams as they come, of one line of a transcript."""
    if command == "echo $?":
        return 0, str(last_status)
    words = shlex.split(command)
    assert words[0] == "alexkit", f"a transcript has {command}"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = app.run(words[1:])
    return status, out.getvalue()


def few_digits(folder: Path, digits: range) -> None:
    """Those of the demo, eight of a class to train on and four to judge by."""
    write_digits(folder, digits)
    for split, kept in (("train", 8), ("val", 4)):
        for place in (folder / split).iterdir():
            for path in sorted(place.iterdir())[kept:]:
                path.unlink()


def in_order(page: Path) -> tuple[int, str]:
    known = page.stem in RUN_FIRST
    return (RUN_FIRST.index(page.stem) if known else len(RUN_FIRST), name_of(page))


@pytest.mark.timeout(900)  # half a minute of two cores, where they are free
def test_transcripts_are_what_the_program_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    few_digits(tmp_path / "imagenet", range(5))
    few_digits(tmp_path / "mydata", range(5, 10))
    wrong = []
    with working_in(tmp_path):
        for page in sorted(DOCS.rglob("*.md"), key=in_order):
            status = 0
            for command, shown in transcripts(page):
                status, printed = typed(command, status)
                told = "error: " in shown or "hint: " in shown
                if not same(shown, printed) or (status and not told):
                    wrong.append(f"{name_of(page)}: $ {command}\n{printed}")
            for language, text in blocks(page):
                if language == "python":
                    with contextlib.redirect_stdout(io.StringIO()):
                        exec(compile(text, name_of(page), "exec"), {})
    assert not wrong, "\n".join(["these print something else now:", *wrong])


def test_a_transcript_that_is_not_true_is_found() -> None:
    printed = "epoch 1/2  loss 1.23\nsaved x\nthe end\n"
    assert same("epoch 1/2 loss 0.99\n…\nthe end\n", printed)
    assert not same("epoch 1/2 loss 0.99\nthe end\n", printed)
    assert not same("epoch 1/2 top-1 0.99\n…\n", printed)


def python(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    script = "from alexkit.cli.app import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *words],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
    )


def test_bash_completes_commands_and_options() -> None:
    asked = {"_ALEXKIT_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    found = python(COMP_WORDS="alexkit fi", **asked)
    assert found.stdout.split() == ["finetune"]
    found = python(COMP_WORDS="alexkit features --list", **(asked | {"COMP_CWORD": "2"}))
    assert "--list-layers" in found.stdout.split()


def test_completion_is_installed(tmp_path: Path) -> None:
    without_looking_for_the_shell = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = python(
        "--install-completion", "bash", HOME=str(tmp_path), **without_looking_for_the_shell
    )
    assert done.returncode == 0, done.stderr
    assert "alexkit" in (tmp_path / ".bashrc").read_text()
    assert list((tmp_path / ".bash_completions").iterdir())
