"""Options from plain values, and back; :mod:`alexkit.recipes.options` passes both on."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from alexkit.errors import UnknownName

if TYPE_CHECKING:
    from alexkit.recipes.options import SharedOptions

Record = TypeVar("Record", bound="SharedOptions")


def from_values(record: type[Record], values: Mapping[str, Any]) -> Record:
    """Options from Python values: a path or one of a few words may be plain text.

    Raises:
        UnknownName: a name that is no option of the command.
        UsageError: a word that the option does not take, or a number below its least.
    """
    kinds = get_type_hints(record)
    made: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            raise UnknownName("option", name, kinds)
        for kind in (kinds[name], *get_args(kinds[name])):
            if not isinstance(kind, type) or not isinstance(value, str):
                continue
            if issubclass(kind, Enum):
                words = [word.value for word in kind]
                if value not in words:
                    raise UnknownName(name, value, words)
                value = kind(value)
            elif issubclass(kind, Path):
                value = Path(value)
        made[name] = tuple(value) if isinstance(value, list) else value
    return record(**made)


def to_record(options: SharedOptions) -> dict[str, Any]:
    """The options as JSON-safe values, by field name."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        if isinstance(value, Path):
            return str(value)
        return getattr(value, "value", value)

    return {f.name: plain(getattr(options, f.name)) for f in dataclasses.fields(options)}
