"""The writer of a feature file whose rows stay in the parts of the processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import DataError, FileMismatch
from alexkit.features.layout import Plan, Status
from alexkit.features.parts import PartWriter, checked_rows, drop_parts, each_part
from alexkit.features.store import FeatureStore
from alexkit.features.virtual import Piece, unborn_path, write_virtual
from alexkit.features.writer import FeatureWriter, Rows, Unfinished, Values
from alexkit.whole_file import UNFINISHED, check_free, partial_path


class VirtualWriter(Unfinished):
    """A feature file in the making, as :class:`alexkit.features.writer.FeatureWriter` is, of
    which nothing is there but parts until it is finished.

    Use it in a ``with`` statement: leaving it without :meth:`finish` keeps the parts for the
    next time.

    Args:
        path: the file to be.
        plan: of all rows.
        overwrite: a finished file may be replaced (when the new one is complete), and an
            interrupted one that does not fit may be thrown away.

    Attributes:
        path: the file to be.
        provenance: of the plan.
        partial: what is being written now.

    Raises:
        OutputExists: a finished file is there.
        UsageError: ``path`` is a folder, or another process is writing it.
        FileMismatch: a file whose rows are all its own was begun under this name.
    """

    def __init__(self, path: Path, plan: Plan, *, overwrite: bool) -> None:
        check_free(path, overwrite)
        self.path, self._plan = path, plan
        self.provenance: dict[str, Any] = dict(plan.provenance)
        self.partial = partial_path(path)
        if self.partial.exists():
            if not overwrite:
                raise FileMismatch(
                    f"{self.partial} was begun as one file, without --merge virtual",
                    hint="leave out --merge virtual, choose another --out, or add --overwrite",
                )
            with suppress(FileMismatch, DataError):  # in use by another process, it stays
                FeatureStore.open(self.partial).close()
            self.partial.unlink()
        unborn_path(path).unlink(missing_ok=True)
        self._own: PartWriter | None = None
        self._status = np.zeros(len(plan.rows), np.uint8)
        self._problems = {}
        self._pieces: list[Piece] = []

    def look(self, *, discard: bool = False, between: Callable[[], None]) -> None:
        """Counts what is done in the parts that lie there; this process's own is closed.

        Raises:
            AlexkitError: see :func:`alexkit.features.parts.each_part`.
        """
        self.close()
        self._status[:] = Status.TODO
        self._problems, self._pieces = {}, []

        def use(store: FeatureStore) -> None:
            numbers = checked_rows(store, self.size)
            fresh = (store.status != Status.TODO) & (self._status[numbers] == Status.TODO)
            there = np.flatnonzero(fresh)
            if there.size:
                here = numbers[there]
                self._pieces.append(Piece(store.path, len(store), there, here))
                self._status[here] = store.status[there]
                reasons = store.reasons
                self._problems |= {
                    int(numbers[row]): why for row, why in reasons.items() if fresh[row]
                }
            between()

        each_part(self.path, self.provenance, use, discard=discard)

    def begin(self, part: Path, rows: Rows) -> None:
        """Opens the part that this process writes: ``rows``, n > 0."""
        self._own = PartWriter(part, self._plan, rows)
        self.partial = self._own.partial

    def append(self, rows: Rows, values: Mapping[str, Values]) -> object:
        """As :meth:`FeatureWriter.append`."""
        assert self._own is not None
        problems = self._own.append(rows, values)
        self._status[rows] = Status.DONE
        return problems

    def mark(self, row: int, status: Status, reason: str) -> None:
        """As :meth:`FeatureWriter.mark`."""
        assert self._own is not None
        self._own.mark(row, status, reason)
        self._status[row] = status
        self._problems[row] = reason

    def finish(self, ending: Mapping[str, Any] | None = None) -> None:
        """Seals the parts, writes the file over them, and removes parts it does not use; all
        rows must be done or marked, and counted by :meth:`look`. The same command goes on
        from a kill at any moment.

        Args:
            ending: what the provenance gets besides; JSON-safe.

        Raises:
            OutOfSpace: the disk is full or gone.
        """
        pieces = [piece._replace(part=_sealed(piece.part)) for piece in self._pieces]
        plan = replace(self._plan, provenance={**self.provenance, **(ending or {})})
        write_virtual(self.path, plan, self._status, self._problems, pieces)
        drop_parts(self.path, keep=[piece.part for piece in pieces])

    def discard(self) -> None:
        """Removes the parts: nothing in them is worth continuing."""
        self.close()
        for piece in self._pieces:
            piece.part.unlink()

    def close(self) -> None:
        """Lets this process's part go; it stays, to be continued."""
        if self._own is not None:
            self._own.close()
            self._own = None


def _sealed(part: Path) -> Path:
    """Gives a part its name, if it has not got it yet."""
    named = part.with_name(part.name.removesuffix(UNFINISHED))
    if named != part:
        with FeatureWriter(named) as writer:
            writer.finish()
    return named
