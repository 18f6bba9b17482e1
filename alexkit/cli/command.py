"""Turns an options record into a Typer command, so that options are written down once."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from alexkit.cli.console import Console
from alexkit.errors import DataError, UnknownName, UsageError
from alexkit.recipes.options import SharedOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Action = Callable[[Any, Console], None]
CONFIG_CHARACTERS = 1 << 20
SHARED_PANEL = "Options every command shares"


def read_config(path: Path, takes_many: dict[str, bool]) -> dict[str, str | list[str]]:
    """The options in a TOML file as they would be typed, keyed by field name.

    Args:
        takes_many: of each option of the command, whether it is a list of values.

    Raises:
        DataError: the file is missing or no TOML.
        UnknownName: it holds a key that is no option of the command.
        UsageError: a table, or a list for an option of one value.
    """
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CONFIG_CHARACTERS + 1)
        if len(text) > CONFIG_CHARACTERS:  # a device may have no end
            raise DataError(f"{path} is too long", hint="--config takes a TOML file")
        table = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as problem:
        raise DataError(
            f"cannot read {path}: {problem}", hint="--config takes a TOML file"
        ) from problem
    except (tomllib.TOMLDecodeError, RecursionError) as problem:
        raise DataError(
            f"{path} is no TOML: {problem}",
            hint='write lines like epochs = 3 or layer = ["fc7"]',
        ) from problem
    values: dict[str, str | list[str]] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in takes_many:
            raise UnknownName("option", key, list(takes_many))
        if isinstance(value, dict):
            raise UsageError(f"{key} in {path} is a table", hint="options are plain values")
        if isinstance(value, list) and not takes_many[name]:
            raise UsageError(f"{key} in {path} is a list", hint="it takes one value")
        words = [*map(_typed, value if isinstance(value, list) else [value])]
        values[name] = words if takes_many[name] else words[0]
    return values


def _typed(value: object) -> str:
    """As it would be typed: what reads options takes words for granted."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _use_config(context: typer.Context, path: Path | None) -> Path | None:
    """Eager callback: what the file says becomes the default of this command line."""
    if path is not None:
        context.default_map = read_config(
            path,
            {
                p.name: p.nargs == -1 or getattr(p, "multiple", False)
                for p in context.command.params
                if p.name not in (None, "config", "help")
            },
        )
    return path


def _console_parameters() -> list[inspect.Parameter]:
    """The options that concern the console alone and so are no part of a run's record."""

    def parameter(name: str, kind: Any, default: Any, **how: Any) -> inspect.Parameter:
        told = typer.Option(f"--{name}", rich_help_panel=SHARED_PANEL, **how)
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default,
            annotation=Annotated[kind, told],
        )

    return [
        parameter(
            "config", Path | None, None, is_eager=True, callback=_use_config,
            help="TOML file of options; the command line wins.", metavar="FILE.toml",
        ),
        *(
            parameter(name, bool, False, help=text, metavar="")
            for name, text in (
                ("json", "One JSON event a line on stdout."),
                ("quiet", "Results and errors only."),
                ("traceback", "Show where an error came from."),
            )
        ),
    ]  # fmt: skip


def _parameter(field: dataclasses.Field[Any], kind: Any) -> inspect.Parameter:
    many = typing.get_origin(kind) is tuple
    if many:
        kind = list[typing.get_args(kind)[0]]  # type: ignore[misc]
    # A flag takes no value, which Typer would otherwise show the type of.
    metavar = "" if kind is bool else field.metadata["metavar"]
    told: dict[str, Any] = {"help": escape(field.metadata["help"]), "metavar": metavar}
    if field.metadata["argument"]:
        info: Any = typer.Argument(show_default=False, **told)
    else:
        shared = field.name in {f.name for f in dataclasses.fields(SharedOptions)}
        info = typer.Option(
            "--" + field.name.replace("_", "-"),
            rich_help_panel=SHARED_PANEL if shared else None,
            show_default=not shared and field.default not in (None, ()),
            **told,
        )
    default: Any = field.default
    if many:
        default = list(default)
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind, info],
    )


def add_command(
    app: typer.Typer, name: str, record: type[SharedOptions], action: Action
) -> None:
    """Registers ``alexkit NAME``: parse into ``record``, then ``action(options, console)``."""
    kinds = typing.get_type_hints(record)
    make: Callable[..., SharedOptions] = record
    # A command's own options come first in its help, the shared ones after them.
    fields = sorted(
        dataclasses.fields(record),
        key=lambda f: (not f.metadata["argument"], f.name in SharedOptions.__annotations__),
    )
    parameters = [_parameter(f, kinds[f.name]) for f in fields] + _console_parameters()

    def call(**typed: Any) -> None:
        console = Console(json=typed.pop("json"), quiet=typed.pop("quiet"))
        del typed["config"], typed["traceback"]  # one is read already, one belongs to app.py
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in typed.items()}
        with console:
            action(make(**values), console)

    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in parameters}
    call.__doc__ = inspect.getdoc(record)
    app.command(name)(call)
