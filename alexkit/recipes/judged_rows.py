"""Which labelled images judge a network: those set apart, or those it has not learnt from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.choices import Split
from alexkit.errors import DataError, UnknownName
from alexkit.events import Chosen, Reporter, Warned
from alexkit.images.draws import Rows
from alexkit.images.source import NO_LABEL, ImageSource, in_splits
from alexkit.recipes.classes import Labels, data_labels
from alexkit.recipes.division import SPLIT_FILE, learnt_from
from alexkit.recipes.run_dir import RECORD, read_record

EVERY = "all"


@dataclass(frozen=True)
class Task:
    """What is judged.

    Attributes:
        source: the images.
        rows: (n) int64, those with a label, of the split.
        labels: (n) int64, of the data.
        classes: K' names of the data's classes.
        split: what the rows are called; "" where they are all.
    """

    source: ImageSource
    rows: Rows
    labels: Labels
    classes: tuple[str, ...]
    split: str


def choose_rows(
    source: ImageSource, split: str | None, weights: Sequence[str], report: Reporter
) -> Task:
    """The labelled rows of the split that is asked for; else of ``val``, else of ``test``;
    else those that no run of ``weights`` has learnt from, where one held some out of this
    data, else all.

    Args:
        weights: files of weights; of those in a run folder its ``split.csv`` is read.

    Raises:
        UnknownName: ``split`` is no split.
        DataError: there is no labelled row in it.
        DamagedFile: a run's record or division cannot be read.
    """
    known = [word.value for word in Split if word.value] + [EVERY]
    if split is not None and split not in known:
        raise UnknownName("split", split, known)
    classes, labels = data_labels(source, report)
    labelled = labels != NO_LABEL
    parts = {name: labelled & in_splits(source.splits, Split(name)) for name in known[:-1]}
    runs = _runs_on(source, weights)
    chosen, wanted, told = split or EVERY, labelled, "all that have a label"
    if split is None:
        own = next((name for name in ("val", "test") if parts[name].any()), None)
        fresh = labelled & ~_learnt(runs, source)
        if own is not None:
            chosen, wanted, told = own, parts[own], "the images set apart"
        elif fresh.any() and not fresh[labelled].all():
            named = ", ".join(str(run) for run in runs if (run / SPLIT_FILE).is_file())
            chosen, wanted, told = "val", fresh, f"those that {named} was not trained on"
        report(Chosen("judged by", f"{int(wanted.sum()):,} images of {chosen}", told))
    elif split != EVERY:
        wanted = parts[split]
    rows = np.flatnonzero(wanted)
    if not len(rows):
        there = ", ".join(name for name, some in parts.items() if some.any()) or EVERY
        raise DataError(
            f"{source.root} has no labelled image of the split {chosen!r}",
            hint=f"there is: {there}",
        )
    if chosen not in ("val", "test"):
        for run in runs:
            report(
                Warned(
                    f"{run} was trained on images of this data: its accuracy on new ones is "
                    "the one it held out, which alexkit info tells"
                )
            )
    return Task(source, rows, labels[rows], classes, "" if chosen == EVERY else chosen)


def _runs_on(source: ImageSource, weights: Sequence[str]) -> list[Path]:
    """The run folders among ``weights`` that were fitted to this data, or to what it was
    before images came or went."""
    found = []
    for path in weights:
        run = Path(path).parent.parent
        data: dict[str, Any] = {}
        if (run / RECORD).is_file():
            data = read_record(run).get("data") or {}
        same = data.get("root") == source.root
        if data and (same or data.get("fingerprint") == source.fingerprint()):
            found.append(run)
    return found


def _learnt(runs: Sequence[Path], source: ImageSource) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(N) which images any of the runs has learnt from, as their divisions tell; all, where a
    run has none."""
    learnt = np.zeros(len(source), bool)
    for run in runs:
        if (run / SPLIT_FILE).is_file():
            learnt |= learnt_from(run / SPLIT_FILE, source)
        else:
            learnt[:] = True
    return learnt
