"""The application and its one error boundary."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from alexkit import __version__
from alexkit.cli import (
    check,
    compare,
    demo,
    doctor,
    evaluate,
    export,
    features,
    finetune,
    info,
    neighbours,
    pack,
    predict,
    report,
    train,
    validate,
)
from alexkit.cli.command import add_command
from alexkit.cli.console import tell_error
from alexkit.errors import AlexkitError, DataError, OutOfMemory, OutOfSpace, UsageError
from alexkit.recipes import options, using
from alexkit.whole_file import ELSEWHERE, FORBIDDEN, MAKE_ROOM

# Newer versions of Typer bring their own copy of click, older ones use the click package; the
# class behind a bad parameter is what both raise for anything wrong on a command line.
CommandLineError = typer.BadParameter.__mro__[2]

INTERRUPTED = 130
BUG = 1
CANNOT_WRITE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
NO_SUCH_PLACE = {
    errno.ENAMETOOLONG: ("a name is too long", "the file system takes no such name"),
    errno.ENOENT: ("there is no such place", "it is gone, or its folder cannot be made"),
    errno.EEXIST: ("a file is where a folder should be", "choose another --out"),
    errno.ENOTDIR: ("a part of this path is no folder", "give the path of a file or folder"),
    errno.EISDIR: ("this is a folder", "give the name of a file"),
    errno.ELOOP: ("links that lead to one another", "give the file or folder itself"),
    errno.ENXIO: ("this is no file", "give the name of a file"),
}

app = typer.Typer(
    name="alexkit",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
add_command(app, "train", options.TrainOptions, train.act)
add_command(app, "features", options.FeaturesOptions, features.act)
add_command(app, "finetune", options.FinetuneOptions, finetune.act)
add_command(app, "eval", options.EvalOptions, evaluate.act)
add_command(app, "compare", options.CompareOptions, compare.act)
add_command(app, "predict", using.PredictOptions, predict.act)
add_command(app, "validate", using.ValidateOptions, validate.act)
add_command(app, "neighbours", options.NeighboursOptions, neighbours.act)
add_command(app, "check", options.CheckOptions, check.act)
add_command(app, "pack", options.PackOptions, pack.act)
add_command(app, "info", options.InfoOptions, info.act)
add_command(app, "export", using.ExportOptions, export.act)
add_command(app, "report", options.ReportOptions, report.act)
add_command(app, "doctor", options.DoctorOptions, doctor.act)
add_command(app, "demo", options.DemoOptions, demo.act)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"alexkit {__version__}")
        raise typer.Exit


@app.callback()
def alexkit(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="The version."),
    ] = False,
) -> None:
    """Transfer learning and feature extraction with AlexNet, faithful to the 2012 paper."""


def as_ours(problem: BaseException) -> AlexkitError | None:
    """The error of ours that tells a user what happened; None for a bug."""
    if isinstance(problem, AlexkitError):
        return problem
    if isinstance(problem, CommandLineError):
        context = getattr(problem, "ctx", None)
        path = context.command_path if context is not None else "alexkit"
        spoken: Any = problem
        message = str(spoken.format_message()).rstrip(".")
        return UsageError(message[:1].lower() + message[1:], hint=f"see {path} --help")
    if isinstance(problem, OSError) and problem.errno in NO_SUCH_PLACE:
        what, hint = NO_SUCH_PLACE[problem.errno]
        where = f": {problem.filename}" if problem.filename else ""
        missing = problem.errno == errno.ENOENT
        return (DataError if missing else UsageError)(what + where, hint=hint)
    if isinstance(problem, OSError) and problem.errno in CANNOT_WRITE:
        where = f": {problem.filename}" if problem.filename else ""
        return OutOfSpace(
            f"cannot write, {CANNOT_WRITE[problem.errno]}{where}",
            hint=ELSEWHERE if problem.errno in FORBIDDEN else MAKE_ROOM,
        )
    # Named, not imported: torch must not be loaded just to recognise its error.
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return OutOfMemory("out of memory", hint="a smaller --batch-size needs less")
    return None


def _numbered(arguments: Sequence[str]) -> list[str]:
    """``--verify 50`` as ``--verify --images 50``: Typer knows no option that takes a value
    and also does without."""
    words = list(arguments)
    for i, word in reversed(list(enumerate(words[1:], 1))):
        if words[i - 1] == "--verify" and word.isdecimal():
            words.insert(i, "--images")
    return words


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit status."""
    if not arguments:
        run(["--help"])
        return UsageError.exit_status
    try:
        status = typer.main.get_command(app).main(
            args=_numbered(arguments), prog_name="alexkit", standalone_mode=False
        )
        if status == INTERRUPTED:  # Typer's own answer to Ctrl-C
            raise KeyboardInterrupt
        sys.stdout.flush()  # here, where a full disk under a redirected output is told
        return status if isinstance(status, int) else 0
    except BrokenPipeError:
        # Whoever read our output has gone; keep the interpreter from complaining on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        tell_error("interrupted", "the same command continues")
        return INTERRUPTED
    except Exception as problem:
        ours = as_ours(problem)
        if "--traceback" in arguments:
            traceback.print_exc()
        if ours is not None:
            tell_error(ours.message, ours.hint)
            return ours.exit_status
        detail = f"{type(problem).__name__}: {problem}".replace("\n", " ")
        tell_error(
            f"a bug in alexkit: {detail}",
            "run the command again with --traceback and report what it prints",
        )
        return BUG


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> NoReturn:
    """The ``alexkit`` command. SIGTERM ends it as Ctrl-C does, where no loop catches both."""
    signal.signal(signal.SIGTERM, _stop)
    for name in ("stdout", "stderr"):  # what was closed by who started this is None
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name must not end a command
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def program() -> NoReturn:
    """:func:`main` in a process that is nothing else; the installed ``alexkit``."""
    try:
        main()
    except SystemExit as ended:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # told before, or there is nobody to tell
                stream.flush()
        # torch takes 0.6 s to take itself apart, and every file is closed by now.
        os._exit(int(ended.code or 0))
