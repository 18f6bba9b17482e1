"""The first thing in which two records differ, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def first_difference(there: object, here: object, name: str = "") -> str | None:
    """Names the first entry in which two JSON-like values differ; None where they agree."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for key in dict.fromkeys([*here, *there]):
            inner = f"{name}.{key}" if name else str(key)
            found = first_difference(there.get(key), here.get(key), inner)
            if found:
                return found
        return None
    if there == here:
        return None
    return f"{name} is {_short(there)} there and {_short(here)} now"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def first_differing(there: Sequence[object], here: Sequence[object]) -> int | None:
    """The first index at which two sequences differ; None where they are equal."""
    for index, (a, b) in enumerate(zip(there, here, strict=False)):
        if a != b:
            return index
    return None if len(there) == len(here) else min(len(there), len(here))
