"""The rows that ``eval`` judges: of one file or several, their labels, how they are divided."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.errors import DamagedFile, DataError, FileMismatch
from alexkit.events import Chosen, Note, Reporter, Warned
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.images.draws import Rows
from alexkit.images.source import NO_LABEL, SPLITS
from alexkit.json_text import from_json
from alexkit.probes.norms import pooled
from alexkit.probes.splits import Division

Signs = npt.NDArray[np.int8]

SPLITS_FORMAT, SPLITS_VERSION = "alexkit/splits", 1
MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class EvalRows:
    """n rows that every file has features of, in the order of the first file.

    Attributes:
        paths: n.
        classes: K names.
        labels: (n) int64, or None where ``signs`` are given.
        signs: (n, K) int8 of ``--labels``: has the class, has it not, 0 is difficult.
        splits: (n) uint8 codes.
        places: for each file the (n) rows in it.
    """

    paths: tuple[str, ...]
    classes: tuple[str, ...]
    labels: Rows | None
    signs: Signs | None
    splits: npt.NDArray[np.uint8]
    places: tuple[Rows, ...]

    def some(self, which: Rows) -> EvalRows:
        """Those of the rows."""
        return replace(
            self,
            paths=tuple(self.paths[row] for row in which),
            labels=None if self.labels is None else self.labels[which],
            signs=None if self.signs is None else self.signs[which],
            splits=self.splits[which],
            places=tuple(place[which] for place in self.places),
        )


class LayerRows:
    """One layer of those rows, (n, d), read from its file when it is asked for.

    Views of an image are averaged; convolutional layers are flattened, or average-pooled.
    """

    def __init__(self, store: FeatureStore, layer: str, places: Rows, *, pool: bool) -> None:
        self.store, self.layer, self.places, self.pool = store, layer, places, pool
        self.shape = (places.size, self[:1].shape[1])

    def __getitem__(self, rows: Rows | slice) -> npt.NDArray[Any]:
        values = self.store.averaged(self.store.values(self.layer, self.places[rows]))
        if self.pool:
            return pooled(self.layer, values)
        return values.reshape(len(values), -1)


def free_memory() -> int:
    """Bytes that can be had without swapping, as Linux says; 0 where it does not."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    told = dict(line.split(":", 1) for line in lines)
    return int(told.get("MemAvailable", "0 kB").split()[0]) * 1024


def align(stores: Sequence[FeatureStore], *, strict: bool, report: Reporter) -> EvalRows:
    """The rows of all files, matched by path; rows without features in any are left out.

    Raises:
        FileMismatch: the files are not of the same rows, labels or classes.
        DataError: a row has no features, and ``strict``.
    """
    first = stores[0]
    done = np.ones(len(first), bool)
    places = []
    for store in stores:
        place = _matched(first, store)
        done &= store.status[place] == Status.DONE
        places.append(place)
        if strict and store.reasons:
            row, reason = next(iter(store.reasons.items()))
            raise DataError(
                f"{store.path} has {len(store.reasons)} rows without features, the first "
                f"{store.paths[row]!r}: {reason}",
                hint="leave out --strict to judge the others",
            )
    if not done.all():
        report(Warned(f"{int((~done).sum())} rows without features are left out"))
    rows = EvalRows(
        first.paths,
        first.classes,
        first.labels.astype(np.int64),
        None,
        first.splits,
        tuple(places),
    )
    return rows.some(np.flatnonzero(done))


def _matched(first: FeatureStore, other: FeatureStore) -> Rows:
    """For each row of the first file its row in the other."""
    if first.paths == other.paths:
        place = np.arange(len(first))
    else:
        known = {path: row for row, path in enumerate(other.paths)}
        mine = set(first.paths)
        for path in (*first.paths, *other.paths):
            if path not in known or path not in mine:
                here, there = (first, other) if path in mine else (other, first)
                raise FileMismatch(
                    f"{path!r} is in {here.path} but not in {there.path}",
                    hint="judge files of the same images together, others one by one",
                )
        place = np.array([known[path] for path in first.paths])

    def named(store: FeatureStore, rows: Rows) -> list[str | None]:
        return [None if k < 0 else store.classes[k] for k in store.labels[rows]]

    mine_named, theirs = named(first, np.arange(len(first))), named(other, place)
    for path, a, b in zip(first.paths, mine_named, theirs, strict=True):
        if a != b:
            raise FileMismatch(
                f"{path!r} has the class {a!r} in {first.path} and {b!r} in {other.path}",
                hint="judge files of the same labels together, others one by one",
            )
    return place


def labelled(rows: EvalRows, report: Reporter) -> EvalRows:
    """Those with a label; the others are counted."""
    assert rows.labels is not None
    which = np.flatnonzero(rows.labels != NO_LABEL)
    if 0 < which.size < rows.labels.size:
        report(Note(f"{rows.labels.size - which.size} rows without a label are left out"))
    return rows.some(which)


def with_labels(rows: EvalRows, path: Path, report: Reporter) -> EvalRows:
    """The rows that a CSV names, with its labels.

    The header is ``path``, then a column a class, and perhaps ``split``; cells are 1 (has the
    class), -1 (has it not), 0 (difficult: not counted in this class), as in VOC's own files.

    Raises:
        DataError: it cannot be read, has another cell, or a path that no row has.
    """
    header, lines = _read_csv(path)
    named = [column for column in header if column not in ("path", "split")]
    places = {name: row for row, name in enumerate(rows.paths)}
    which, signs, splits = [], [], []
    words = [split.value for split in SPLITS]
    for number, line in enumerate(lines, 2):
        where = f"line {number} of {path}"
        if line["path"] not in places:
            raise DataError(
                f"{where}: no row with features is {line['path']!r}",
                hint="paths are those of alexkit info F.h5 --rows",
            )
        cells = [line[column] for column in named]
        wrong = [cell for cell in cells if cell not in ("1", "-1", "0")]
        if wrong:
            raise DataError(f"{where}: {wrong[0]!r} is no label", hint="use 1, -1 or 0")
        split = line.get("split", rows.splits[places[line["path"]]])
        if isinstance(split, str):
            if split not in words:
                raise DataError(f"{where}: no split {split!r}", hint="use train, val or test")
            split = SPLITS.index(Split(split))
        which.append(places[line["path"]])
        signs.append([int(cell) for cell in cells])
        splits.append(int(split))
    if len(set(which)) < len(which):
        raise DataError(f"{path} names a row twice", hint="leave one of its lines")
    if len(which) < len(rows.paths):
        report(Note(f"{len(rows.paths) - len(which)} rows without a label are left out"))
    order = np.argsort(which)
    chosen = rows.some(np.array(which, np.int64)[order])
    return replace(
        chosen,
        classes=tuple(named),
        labels=None,
        signs=np.array(signs, np.int8)[order],
        splits=np.array(splits, np.uint8)[order],
    )


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lines = list(reader)
            header = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise DataError(
            f"cannot read {path}: {problem}", hint="--labels takes a CSV"
        ) from problem
    classes = set(header) - {"path", "split"}
    if "path" not in header or not classes or len(set(header)) < len(header) or not lines:
        raise DataError(
            f"{path} has no labels",
            hint="its first line is path,CLASS,CLASS,… and every other one a row",
        )
    for number, line in enumerate(lines, 2):
        if None in line or None in line.values():
            raise DataError(
                f"line {number} of {path} has not {len(header)} cells", hint="mend the line"
            )
    return header, lines


def write_splits(divisions: Sequence[Division], paths: Sequence[str]) -> dict[str, Any]:
    """Divisions by path, so that they survive another order of the rows."""
    return {
        "format": SPLITS_FORMAT,
        "format_version": SPLITS_VERSION,
        "splits": [
            {
                part: [paths[row] for row in getattr(division, part)]
                for part in ("train", "test", "val")
            }
            for division in divisions
        ],
    }


def read_splits(path: Path, rows: EvalRows, report: Reporter) -> list[Division]:
    """What :func:`write_splits` made of a file.

    Raises:
        DataError: there is no such file.
        DamagedFile: it is not of that format.
        FileMismatch: it names a path that no row has.
    """
    try:
        told = from_json(path.read_text(encoding="utf-8"))
        splits = [_checked_split(split) for split in told["splits"]]
        made = told["format"], told["format_version"]
        if made != (SPLITS_FORMAT, SPLITS_VERSION) or not splits:
            raise ValueError("another format")
    except OSError as problem:
        raise DataError(f"cannot read {path}: {problem}", hint="name a file") from problem
    except (ValueError, KeyError, TypeError) as problem:
        raise DamagedFile(
            f"{path} is no split file of alexkit: {problem}",
            hint="name one that --save-splits wrote",
        ) from problem
    places = {name: row for row, name in enumerate(rows.paths)}
    for split in splits:
        for name in (*split["train"], *split["test"]):
            if name not in places:
                raise FileMismatch(
                    f"{path} divides {name!r}, which is no labelled row with features",
                    hint="name the split file of these images",
                )
    report(Chosen("splits", str(len(splits)), str(path)))
    return [
        Division(
            **{
                part: np.sort(np.array([places[name] for name in split[part]], np.int64))
                for part in ("train", "test", "val")
            }
        )
        for split in splits
    ]


def _checked_split(split: Mapping[str, Any]) -> dict[str, list[str]]:
    """Lists of text, nothing twice; nothing is trained on and tested, and what chooses C
    trains."""
    parts = {part: list(map(str, split[part])) for part in ("train", "test", "val")}
    if any(len(set(names)) < len(names) for names in parts.values()):
        raise ValueError("a row twice in one part")
    train, test = set(parts["train"]), set(parts["test"])
    if not train or not test or train & test or not set(parts["val"]) <= train:
        raise ValueError("a split without train or test rows, or with a row in both")
    return parts
