"""A text or CSV file that lists images: ``path[,label[,split]]``."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexkit.choices import Split
from alexkit.errors import DataError
from alexkit.images.files import (
    SPLIT_WORDS,
    FileSource,
    cannot_read,
    counted,
    order_notes,
    shown,
)
from alexkit.images.labels import numbered
from alexkit.images.source import SPLITS

LIST_SUFFIXES = frozenset({".csv", ".txt", ".lst"})
"""Endings that make a file a list, in lower case."""

_COLUMNS = {
    "path": (
        *("path", "file", "filename", "filepath", "image", "imagepath", "imagename", "img"),
        *("imagefile", "imgpath", "name", "id", "imageid"),
    ),
    "label": ("label", "class", "classname", "category", "target"),
    "split": ("split", "set", "subset"),
}
"""What a header may call each column, best first, in lower case and without spaces, hyphens
and underscores."""

_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", " ": "spaces"}
"""What stands between the columns of lists that other programs write."""


@dataclass(frozen=True)
class _Line:
    number: int
    path: str
    label: str
    split: str


def open_list(file: Path) -> FileSource:
    """Reads a list; no image is opened, and the rows keep the list's order.

    One image a line, ``path[,label[,split]]``, quoted as in CSV where a path holds commas,
    quotes or line breaks. Relative paths start at the list's own folder. A first line that
    names the columns ("path", "label", "split" or the synonyms in ``_COLUMNS``) may put them
    in any order and have others, which are left out. Labels are names, matched as text; an
    empty one means none. Files that are missing stay rows, whose ``read`` says so.

    Raises:
        DataError: not text, no row, an unknown split, too many columns, names of columns
            that are not known, or every file missing. The line is named where there is one.
    """
    place = Path(os.path.abspath(file)).parent
    lines, notes = _read(file)
    if not lines:
        raise DataError(f"the list {shown(str(file))} is empty", hint="write one path a line")
    splits = [_split(file, line) for line in lines]
    paths = tuple(line.path for line in lines)
    # Stops at the first one that is there, so that a long list costs one look.
    if not any(_is_there(place, path) for path in paths):
        raise DataError(
            f"none of the {counted(len(paths), 'file')} in {shown(str(file))} is there",
            hint=_separated_otherwise(place, paths[0])
            or f"the first is looked for at {shown(os.path.join(place, paths[0]))}",
        )
    _refuse_unknown_header(file, place, lines)
    classes, labels, unlabelled = numbered([line.label or None for line in lines])
    notes += unlabelled
    if repeated := [path for path, times in Counter(paths).items() if times > 1]:
        notes.append(f"{counted(len(repeated), 'path', repeated)} listed more than once")
    return FileSource(
        kind="list",
        root=shown(str(place)),
        classes=tuple(map(shown, classes)),
        labels=labels,
        splits=np.array([SPLITS.index(split) for split in splits], np.uint8),
        notes=(*notes, *order_notes(classes)),
        place=place,
        paths=paths,
    )


def _is_there(place: Path, path: str) -> bool:
    return os.path.exists(os.path.join(place, path))


def _separated_otherwise(place: Path, path: str) -> str:
    """A hint where the path's beginning is a file; else ""."""
    for mark, name in _OTHER_SEPARATORS.items():
        beginnings = (path.partition(mark)[0], path.rpartition(mark)[0])
        if mark in path and any(os.path.isfile(os.path.join(place, b)) for b in beginnings):
            return f"put commas, not {name}, between path, label and split"
    return ""


def _refuse_unknown_header(file: Path, place: Path, lines: list[_Line]) -> None:
    """Else the names of the columns would become one more image, missing, and its class.

    Raises:
        DataError: the first line has no file's ending and names none, and all others do.
    """
    first, *rest = lines
    endings = {os.path.splitext(line.path)[1].lower() for line in rest}
    named = os.path.splitext(first.path)[1].lower()
    if named or "" in endings or not rest or _is_there(place, first.path):
        return
    raise DataError(
        f"line {first.number} of {shown(str(file))} names no file: {shown(first.path)!r}",
        hint="if it is a header, call the column of files path; else mend or remove the line",
    )


def _read(file: Path) -> tuple[list[_Line], list[str]]:
    columns: dict[str, int] = {"path": 0, "label": 1, "split": 2}
    notes: list[str] = []
    lines: list[_Line] = []
    width = 3
    for number, cells in _cells(file):
        if not lines and not notes and (header := _header(cells)):
            columns, width = header, len(cells)
            named = ", ".join(columns)
            notes.append(f"line {number} read as a header: {named}")
            continue
        if len(cells) > width:
            raise DataError(
                f"line {number} of {shown(str(file))} has {len(cells)} columns, not {width}",
                hint='put a path that holds commas in "quotes"',
            )
        values = {name: cells[at] if at < len(cells) else "" for name, at in columns.items()}
        lines.append(
            _Line(
                number,
                values["path"],
                values.get("label", "").strip(),
                values.get("split", "").strip(),
            )
        )
        if not lines[-1].path:
            raise DataError(
                f"line {number} of {shown(str(file))} has no path",
                hint="write path,label,split with the path first",
            )
    return lines, notes


def _cells(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (of its end, from 1) and cells of each line that is not empty."""
    try:
        # Bytes that are not UTF-8 come through as Python keeps such file names.
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            reader = csv.reader(text, skipinitialspace=True, strict=True)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    if any("\0" in cell for cell in cells):
                        raise csv.Error("zero bytes")
                    yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f"line {reader.line_num} of {shown(str(file))} is not text or CSV: {error}",
            hint="save the list as UTF-8 text, one path,label,split a line",
        ) from error
    except OSError as error:
        raise cannot_read(file, error) from error


def _header(cells: list[str]) -> dict[str, int]:
    """Column numbers by name when the line is a header, else nothing."""
    words = [re.sub(r"[ _-]", "", cell).lower() for cell in cells]
    columns = {
        name: words.index(next(word for word in synonyms if word in words))
        for name, synonyms in _COLUMNS.items()
        if any(word in synonyms for word in words)
    }
    return columns if "path" in columns else {}


def _split(file: Path, line: _Line) -> Split:
    if not line.split:
        return Split.NONE
    if line.split.lower() not in SPLIT_WORDS:
        raise DataError(
            f"line {line.number} of {shown(str(file))} has the unknown split"
            f" {shown(line.split)!r}",
            hint=f"known: {', '.join(SPLIT_WORDS)}, or nothing",
        )
    return SPLIT_WORDS[line.split.lower()]
