"""A run folder, or a feature file, into its page: what is read, and how much of it."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import AlexkitError, DamagedFile, UsageError
from alexkit.features.store import FeatureStore
from alexkit.images.opening import open_source
from alexkit.images.source import ImageSource
from alexkit.json_text import from_json
from alexkit.recipes.evaluate import EVAL_FILE
from alexkit.recipes.inputs import FEATURES_FILE, FITTED
from alexkit.recipes.ledger import LEDGER, read_ledger
from alexkit.recipes.looking import BRIEF, Effort, look_at
from alexkit.recipes.predictions import PREDICTIONS, read_predictions
from alexkit.recipes.progress import METRICS
from alexkit.recipes.reporting import REPORT
from alexkit.recipes.run_dir import RECORD, read_record
from alexkit.reports.compared_page import Run, compared_page
from alexkit.reports.eval_page import EvalFacts, eval_page, hardest
from alexkit.reports.features import feature_record
from alexkit.reports.features_page import features_page
from alexkit.reports.fit_page import FitFacts, fit_page, worst_mistakes
from alexkit.reports.page import Page, write_page
from alexkit.reports.thumbnails import thumbnails

COMMANDS = (*FITTED, "eval", "features")


def write_report(folder: Path, source: ImageSource | None) -> Path:
    """Writes the page of a run folder into it, in little time, and returns its path.

    Raises:
        DamagedFile: the folder is no run's, or one of its files is damaged.
        UsageError: the run is of a command that has no page.
    """
    path = folder / REPORT
    write_page(page_of(folder, BRIEF, source=source), path)
    return path


def page_of(
    place: Path, effort: Effort, *, source: ImageSource | None = None, data: Path | None = None
) -> Page:
    """The page of a run folder or a feature file; see :func:`write_report`."""
    if not place.is_dir():
        return _features(place, None, effort, source, data)
    record = read_record(place)
    command = record["command"]
    if command in FITTED:
        return _fit(place, record, effort, source, data)
    if command == "eval":
        return _eval(place, record, effort, source, data)
    if command == "features":
        return _features(place / FEATURES_FILE, place, effort, source, data)
    raise _no_page(place, command)


def compare(places: Sequence[Path]) -> Page:
    """Several runs side by side.

    Raises:
        DamagedFile, UsageError: see :func:`write_report`.
    """
    return compared_page([_run(place) for place in places])


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of a ``metrics.csv``; none where there is no file.

    Raises:
        DamagedFile: a cell is no number.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError, AttributeError) as problem:
        raise DamagedFile(
            f"{path} is not as alexkit wrote it: {problem}", hint="continue or repeat the run"
        ) from problem


def _fit(
    folder: Path,
    record: Mapping[str, Any],
    effort: Effort,
    source: ImageSource | None,
    data: Path | None,
) -> Page:
    lines = read_predictions(folder / PREDICTIONS)
    named = data or Path((record.get("data") or {}).get("path") or "")
    source, notes = _opened(source, named)
    wanted = [line["path"] for line in worst_mistakes(lines)]
    in_all: dict[str, int] = {}
    if source is not None:
        labels = source.labels[source.labels >= 0]
        counts = np.bincount(labels, minlength=len(source.classes)).tolist()
        in_all = dict(zip(source.classes, counts, strict=False))
    return fit_page(
        FitFacts(
            folder.name,
            record,
            read_metrics(folder / METRICS),
            lines,
            _ledger(folder),
            thumbnails(source, wanted, seconds=effort.seconds),
            in_all,
            notes,
        )
    )


def _eval(
    folder: Path,
    record: Mapping[str, Any],
    effort: Effort,
    source: ImageSource | None,
    data: Path | None,
) -> Page:
    told = _eval_json(folder)
    lines = read_predictions(folder / PREDICTIONS)
    notes: list[str] = []
    if source is None and lines:
        with FeatureStore.open(told["results"][0]["file"]) as store:
            source, notes = _opened(None, data or store.data)
    wanted = [line["path"] for line in hardest(lines)]
    small = thumbnails(source, wanted, seconds=effort.seconds)
    return eval_page(EvalFacts(folder.name, record, told, lines, small, notes))


def _features(
    path: Path,
    folder: Path | None,
    effort: Effort,
    source: ImageSource | None,
    data: Path | None,
) -> Page:
    with FeatureStore.open(path) as store:
        source, notes = _opened(source, data or store.data)
        facts = look_at(store, source, effort)
        record = None if folder is None else read_record(folder)
        name = path.name if folder is None else folder.name
        ledger = [] if folder is None else _ledger(folder)
        facts = replace(
            facts,
            name=name,
            record=record,
            ledger=ledger or [[store.paths[r], why, ""] for r, why in store.reasons.items()],
            notes=notes,
        )
        return features_page(facts)


def _run(place: Path) -> Run:
    if not place.is_dir():
        with FeatureStore.open(place) as store:
            alone = {"command": "features", "options": {}, "state": "done"}
            return Run(str(place), alone, told=feature_record(store))
    record = read_record(place)
    command = record["command"]
    if command in FITTED:
        return Run(str(place), record, read_metrics(place / METRICS))
    if command == "eval":
        return Run(str(place), record, told=_eval_json(place))
    if command == "features":
        with FeatureStore.open(place / FEATURES_FILE) as store:
            return Run(str(place), record, told=feature_record(store))
    raise _no_page(place, command)


def _opened(
    source: ImageSource | None, data: Path | None
) -> tuple[ImageSource | None, list[str]]:
    """The images, or None and a sentence on why there are no thumbnails."""
    if source is not None:
        return source, []
    if data is None or data == Path():
        return None, ["It is not known where the images are, so there are no thumbnails."]
    try:
        return open_source(data), []
    except AlexkitError as problem:
        return None, [f"There are no thumbnails: {problem.message}."]


def _ledger(folder: Path) -> list[list[str]]:
    path = folder / LEDGER
    return read_ledger(path) if path.exists() else []


def _eval_json(folder: Path) -> dict[str, Any]:
    path = folder / EVAL_FILE
    try:
        told = from_json(path.read_text(encoding="utf-8"))
        if not told["results"]:
            raise ValueError("no results")
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise DamagedFile(
            f"{path} cannot be read: {problem}", hint="is the eval finished? repeat it if so"
        ) from problem
    assert isinstance(told, dict)
    return told


def _no_page(place: Path, command: str) -> UsageError:
    return UsageError(
        f"{place / RECORD} is of {command}, which has no report",
        hint=f"name a run of {', '.join(COMMANDS)}",
    )
