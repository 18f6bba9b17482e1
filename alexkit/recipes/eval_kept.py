"""What ``eval`` has judged already, kept in its run folder until it is done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexkit import __version__
from alexkit.probes.kept import Kept
from alexkit.probes.outcomes import Outcomes
from alexkit.recipes.options import EvalOptions


@dataclass(frozen=True)
class Judged:
    """A layer that was judged, and what is compared with others.

    Attributes:
        name: the layer, with its file where there are several.
        result: its entry in ``eval.json``.
        outcomes: of each row, None where rows may have several classes.
    """

    name: str
    result: dict[str, Any]
    outcomes: Outcomes | None


def kept_in(folder: Path, files: Sequence[Path], options: EvalOptions) -> Kept:
    """A place in a run's folder for what is found with these very files and this version."""
    given = [*files, *filter(None, (options.labels, options.splits))]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in given]
    return Kept(folder, json.dumps([__version__, stats]), "judged")


def keep_judged(place: Kept, judged: Judged) -> Judged:
    """Stores it, and gives it back."""
    told = np.array(json.dumps({"name": judged.name, "result": judged.result}))
    rows = {} if judged.outcomes is None else vars(judged.outcomes)
    place.store(told=told, **rows)
    return judged


def judged_before(place: Kept) -> Judged | None:
    """What was stored there; None where nothing was."""
    found = place.load()
    if found is None:
        return None
    told = json.loads(str(found.pop("told")))
    return Judged(**told, outcomes=Outcomes(**found) if found else None)
