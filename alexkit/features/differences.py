"""The first thing in which two records, or a file and what it is to be, differ, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from alexkit.features.layout import Plan
from alexkit.images.source import stored_text

if TYPE_CHECKING:
    from alexkit.features.store import FeatureStore


def difference_of(found: FeatureStore, plan: Plan) -> str | None:
    """Names the first thing in which an interrupted file and a plan differ."""
    settings = first_difference(
        found.provenance.get("fingerprint"), plan.provenance.get("fingerprint"), "fingerprint"
    )
    if settings:
        return settings.removeprefix("fingerprint.")
    fixed = first_difference(
        {"layers": found.layers, "dtype": found.dtype.name, "classes": found.classes},
        {
            "layers": {name: tuple(shape) for name, shape in plan.layers.items()},
            "dtype": plan.dtype.value,
            "classes": tuple(stored_text(name) for name in plan.classes),
        },
    )
    if fixed:
        return fixed
    if len(found) != len(plan.rows):
        return f"it has {len(found)} rows, and now there are {len(plan.rows)}"
    here = [stored_text(path) for path in plan.rows.paths]
    pairs = enumerate(zip(found.paths, here, strict=True))
    row = next((row for row, (there, now) in pairs if there != now), None)
    if row is not None:
        return f"row {row} is {found.paths[row]!r} there and {here[row]!r} now"
    same = (found.labels == plan.rows.labels) & (found.splits == plan.rows.splits)
    if not same.all():
        return f"{here[int(np.argmin(same))]!r} has another label or split"
    return None


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
