"""Parts of a feature file: what one process of several has extracted, beside the file to be.

A part is itself the ``.partial`` of a feature file, of some rows only, with their numbers in
the whole: as safe from a kill, and taken in by whoever continues the whole file. Where it is to
stay, for a virtual file, it loses that ending when all is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import AlexkitError, DamagedFile, FileMismatch
from alexkit.features.differences import first_difference
from alexkit.features.layout import BLOCK_BYTES, Plan, RowTable, Status
from alexkit.features.opening import damaged, opened, reading
from alexkit.features.store import FeatureStore
from alexkit.features.virtual import names_of_parts, unborn_path
from alexkit.features.writer import FeatureWriter, Rows, Values
from alexkit.whole_file import UNFINISHED

_PART = r"\.part-(\d+)-of-\d+"


def part_path(path: Path, rank: int, ranks: int) -> Path:
    """The part that process ``rank`` of ``ranks`` writes, without ``.partial``."""
    return path.with_name(f"{path.name}.part-{rank}-of-{ranks}")


def parts_beside(path: Path, ending: str = UNFINISHED) -> list[Path]:
    """The parts of ``path`` that lie there, whatever number of processes wrote them; those
    with no ``ending`` are of a virtual file."""
    return [part for _, part in _numbered(path, ending)]


def free_number(path: Path) -> int:
    """The least from which on no part of ``path`` has a number."""
    there = _numbered(path, UNFINISHED) + _numbered(path, "")
    return max((number + 1 for number, _ in there), default=0)


def _numbered(path: Path, ending: str) -> list[tuple[int, Path]]:
    if not path.parent.is_dir():
        return []
    form = re.compile(re.escape(path.name) + _PART + re.escape(ending))
    found = ((form.fullmatch(entry.name), entry) for entry in path.parent.iterdir())
    return sorted((int(match[1]), entry) for match, entry in found if match)


def drop_parts(path: Path, keep: Collection[Path] = ()) -> None:
    """Removes the parts, of a virtual file or unfinished, that a finished file does not use."""
    for part in parts_beside(path) + parts_beside(path, ""):
        if part not in keep:
            part.unlink()
    unborn_path(path).unlink(missing_ok=True)


def rows_of_rank(rows: Rows, size: int, rank: int, ranks: int) -> Rows:
    """What of ``rows`` is of process ``rank``: every ``ranks``-th batch of ``size`` rows, or
    of fewer where some process would get none."""
    size = max(1, min(size, len(rows) // ranks))
    mine: Rows = rows[(np.arange(len(rows)) // size) % ranks == rank]
    return mine


def stretch_of_rank(rows: Rows, rank: int, ranks: int) -> Rows:
    """The same in one stretch each, of which a virtual file is put together quickest."""
    mine: Rows = np.array_split(rows, ranks)[rank]
    return mine


class PartWriter:
    """A part in the making; rows have the numbers of the whole file.

    Use it in a ``with`` statement.

    Args:
        path: from :func:`part_path`.
        plan: of the whole file.
        numbers: (n) int64, n > 0, ascending: the rows of the part.

    Raises:
        OutOfSpace: the disk is full, read-only, or not ours to write.
        UsageError: another process is writing it.
    """

    def __init__(self, path: Path, plan: Plan, numbers: Rows) -> None:
        self._numbers = numbers
        rows = plan.rows
        paths = tuple(rows.paths[row] for row in numbers.tolist())
        table = RowTable(paths, rows.labels[numbers], rows.splits[numbers], numbers)
        self._writer = FeatureStore.create(path, replace(plan, rows=table), overwrite=True)
        self.partial = self._writer.partial

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the part go; it stays, to be continued."""
        self._writer.close()

    def pending(self) -> Rows:
        """The rows still to do, ascending, by their numbers in the whole; int64."""
        return self._numbers[self._writer.pending()]

    def append(self, rows: Rows, values: Mapping[str, Values]) -> object:
        """As :meth:`FeatureWriter.append`."""
        return self._writer.append(np.searchsorted(self._numbers, rows), values)

    def mark(self, row: int, status: Status, reason: str) -> None:
        """As :meth:`FeatureWriter.mark`."""
        self._writer.mark(int(np.searchsorted(self._numbers, row)), status, reason)


def each_part(
    path: Path,
    provenance: Mapping[str, Any],
    use: Callable[[FeatureStore], None],
    *,
    discard: bool = False,
) -> list[Path]:
    """Lets ``use`` see every part that a command goes on with: all but those of a finished
    virtual file of that name. Returns them.

    Args:
        path: the whole file.
        provenance: of it.
        discard: a part that does not belong to it may be thrown away.

    Raises:
        UsageError: another process is writing a part.
        FileMismatch: a part was made with other settings, or is damaged.
    """
    for unborn in parts_beside(path, UNFINISHED + ".new"):
        unborn.unlink()
    owned = _parts_in_use(path)
    used = []
    for part in [*parts_beside(path, ""), *parts_beside(path)]:
        if part in owned:
            continue
        try:
            with FeatureStore.open(part) as store:
                difference = first_difference(
                    store.provenance.get("fingerprint"), provenance.get("fingerprint")
                )
                if difference:
                    raise FileMismatch(
                        f"{part} is of an interrupted run with other settings: {difference}",
                        hint=f"repeat its settings, delete {part.name}, or add --overwrite",
                    )
                use(store)
            used.append(part)
        except FileMismatch as error:
            if not discard:
                if isinstance(error, DamagedFile):
                    hint = f"delete {part}: its rows are then extracted again"
                    raise DamagedFile(error.message, hint=hint) from error
                raise
            part.unlink()
    return used


def _parts_in_use(path: Path) -> set[Path]:
    """The parts of a finished virtual file, there or not."""
    if not path.exists():
        return set()
    try:
        with reading(path), opened(path, "r") as file:
            return {path.with_name(name) for name in names_of_parts(file)}
    except AlexkitError:  # then nobody can read it
        return set()


def take_in(
    writer: FeatureWriter, *, discard: bool = False, between: Callable[[], None]
) -> None:
    """Moves every finished row of the parts beside a file into it, and removes the parts.

    A row that the file has already is not written again, so a kill at any moment loses
    nothing: what is left of the parts is taken in the next time.

    Args:
        writer: of the whole file.
        discard: a part that does not belong to it may be thrown away.
        between: called after each block.

    Raises:
        OutOfSpace: the disk is full or gone.
        AlexkitError: see :func:`each_part`.
    """

    def use(store: FeatureStore) -> None:
        _move(store, writer, between)

    for part in each_part(writer.path, writer.provenance, use, discard=discard):
        part.unlink()


def checked_rows(store: FeatureStore, size: int) -> Rows:
    """(n) int64: which rows of a whole of ``size`` rows a part has.

    Raises:
        DamagedFile: it is of another whole.
    """
    numbers = store.numbers
    if numbers.min() < 0 or numbers.max() >= size:
        raise damaged(store.path, "is of a file with other rows")
    return numbers


def _move(store: FeatureStore, writer: FeatureWriter, between: Callable[[], None]) -> None:
    numbers = checked_rows(store, writer.size)
    pending = writer.pending()
    wanted = np.isin(numbers, pending)
    done = np.flatnonzero(wanted & (store.status == Status.DONE))
    row_bytes = sum(store.nbytes(layer) for layer in store.layers) // len(store)
    step = max(1, BLOCK_BYTES // row_bytes)
    for start in range(0, done.size, step):
        rows = done[start : start + step]
        values: dict[str, Any] = {layer: store.values(layer, rows) for layer in store.layers}
        writer.append(numbers[rows], values)
        between()
    for row, reason in store.reasons.items():
        if wanted[row]:
            writer.mark(int(numbers[row]), Status(store.status[row]), reason)
