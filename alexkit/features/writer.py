"""The writer of a feature file, which survives any kill.

While rows are written the HDF5 library only holds the file open (and locked): each row's
bytes go straight to the place the skeleton gave them, first the features, then the status.
A row whose status says *done* is therefore whole, whatever happened to the process after;
a row caught in the middle still says *not done* and is written again. Only
:meth:`FeatureWriter.finish` changes metadata, two attributes in place, and then the file
gets its name. (A power cut is another matter: bytes are forced to the disk at the end.)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from alexkit.choices import Compress
from alexkit.features.compress import compress_file
from alexkit.features.layout import (
    FEATURES,
    NUMBER,
    REASON,
    REASON_TEXT,
    STATUS,
    STATUS_DTYPE,
    RowProblem,
    Status,
    not_finite,
    not_sealed,
    provenance_text,
    stored_reason,
    write_bytes,
)
from alexkit.features.opening import damaged, opened, reading
from alexkit.features.seal import append_seal
from alexkit.json_text import from_json
from alexkit.whole_file import partial_path, writing

Rows = npt.NDArray[np.int64]
Values = npt.NDArray[Any]
Self = TypeVar("Self", bound="Unfinished")


class Unfinished:
    """What is done of the rows of a file in the making; use it in a ``with`` statement."""

    _status: npt.NDArray[np.uint8]
    _problems: dict[int, str]

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def size(self) -> int:
        """All rows."""
        return self._status.size

    def pending(self) -> Rows:
        """The rows still to do, ascending; int64."""
        return np.flatnonzero(self._status == Status.TODO).astype(np.int64)

    def problems(self) -> dict[int, str]:
        """Row -> reason of the rows marked so far, those of an interrupted run included."""
        return dict(self._problems)

    def close(self) -> None:
        """Lets what is being written go; it stays, to be continued."""
        raise NotImplementedError


class FeatureWriter(Unfinished):
    """A feature file in the making; from
    :meth:`alexkit.features.store.FeatureStore.create`.

    Use it in a ``with`` statement: leaving it without :meth:`finish` keeps the ``.partial``
    for the next time. Not for several threads or processes.

    Attributes:
        path: the file to be.
        provenance: as it was when the file was begun.
    """

    def __init__(self, path: Path, compress: Compress = Compress.NONE) -> None:
        self.path = path
        self._compress = compress
        self.partial = partial_path(path)
        with reading(self.partial):
            self._file = opened(self.partial, "r+")
            self.provenance: dict[str, Any] = from_json(self._file.attrs["provenance"])
            self._status = self._file[STATUS][:]
            bad, texts = self._status >= Status.UNREADABLE, self._file[REASON].asstr()
            self._problems = {int(row): str(texts[row]) for row in np.flatnonzero(bad)}
            self._layers = {name: data.shape[1:] for name, data in self._file[FEATURES].items()}
            names = [STATUS, REASON, *(f"{FEATURES}/{name}" for name in self._layers)]
            self._places = {name: self._place(self._file[name]) for name in names}
        self._dtype = self._places[names[-1]][1]
        with writing(path):
            self._raw = open(self.partial, "r+b", buffering=0)  # noqa: SIM115 - till close()

    def _place(self, dataset: Any) -> tuple[int, np.dtype[Any], int]:
        """Offset in the file, number type, and bytes of one row."""
        offset = dataset.id.get_offset()
        if offset is None:
            raise damaged(self.partial, f"cannot be continued: {dataset.name} has no place")
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:]))
        return offset, dataset.dtype, row_bytes

    def append(self, rows: Rows, values: Mapping[str, Values]) -> tuple[RowProblem, ...]:
        """Writes rows of every layer; when it returns, no kill can lose them.

        Values are stored in the file's number type. A row that is not all finite in it — a
        number beyond 65504 in float16, or one that came as NaN — is not stored: it gets
        status 3 with the layer and the number as its reason, and is returned, so that the
        caller can say so. Infinity is never written.

        Args:
            rows: (B) int64, rows still to do; none twice.
            values: (B, …) for each layer; may be empty where B is 0.

        Raises:
            OutOfSpace: the disk is full or gone; rows of this call may or may not be done.
        """
        if not rows.size:
            return ()
        assert set(values) == set(self._layers)
        assert np.unique(rows).size == rows.size
        assert not self._status[rows].any()
        problems: dict[int, RowProblem] = {}
        stored: dict[str, Values] = {}
        for layer, given in values.items():
            assert given.shape == (rows.size, *self._layers[layer])
            with np.errstate(over="ignore"):
                stored[layer] = given.astype(self._dtype, copy=False)
            finite = np.isfinite(stored[layer]).reshape(rows.size, -1).all(axis=1)
            for i in np.flatnonzero(~finite).tolist():
                reason = not_finite(layer, _worst(given[i]), self._dtype)
                problems.setdefault(i, RowProblem(int(rows[i]), Status.NON_FINITE, reason))
        whole = np.delete(np.arange(rows.size), list(problems))
        for span in _spans(rows, whole):
            for layer, block in stored.items():
                self._put(f"{FEATURES}/{layer}", int(rows[span[0]]), block[span])
        for span in _spans(rows, whole):
            self._set_status(rows[span], Status.DONE)
        for problem in problems.values():
            self.mark(*problem)
        return tuple(problems.values())

    def mark(self, row: int, status: Status, reason: str) -> None:
        """Says that a row will have no features: it holds NaN, with a status and a reason.

        Raises:
            OutOfSpace: the disk is full or gone.
        """
        assert status in (Status.UNREADABLE, Status.NON_FINITE)
        assert reason
        assert self._status[row] == Status.TODO
        for layer, shape in self._layers.items():
            # A kill in the middle of an earlier write may have left half a row here.
            self._put(f"{FEATURES}/{layer}", row, np.full(shape, np.nan, self._dtype))
        self._put(REASON, row, np.array([stored_reason(reason)], REASON_TEXT))
        self._set_status(np.array([row]), status)
        self._problems[row] = reason

    def finish(
        self,
        ending: Mapping[str, Any] | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Gives the file its name, or compresses it into one of that name; all rows must be
        done or marked, but for a part's. The same command goes on from a kill at any moment.

        Args:
            ending: what the provenance gets besides, e.g. the time it ended; JSON-safe.
            progress: told the bytes that are compressed.

        Raises:
            OutOfSpace: the disk is full or gone.
        """
        complete = not self.pending().size
        assert complete or NUMBER in self._file
        text = provenance_text({**self.provenance, **(ending or {})})
        with writing(self.path):
            os.fsync(self._raw.fileno())  # a disk that fails, fails here and not inside HDF5
            room = self._file.attrs.get_id("provenance").dtype.itemsize
            assert len(text) <= room, "the ending is longer than the room kept for it"
            self._file.attrs.modify("provenance", np.bytes_(text.ljust(room)))
            self._file.attrs.modify("complete", np.bool_(complete))
            left_out = not_sealed(self._file)
            self._file.close()
            if self._compress is Compress.NONE:
                append_seal(self._raw, left_out)
            os.fsync(self._raw.fileno())
            self._raw.close()
            if self._compress is Compress.NONE:
                os.replace(self.partial, self.path)
                return
        compress_file(self.partial, self.path, self._compress, progress)
        self.partial.unlink()

    def discard(self) -> None:
        """Lets the file go and removes it: nothing in it is worth continuing."""
        self.close()
        self.partial.unlink()

    def close(self) -> None:
        """Lets the file go; without :meth:`finish` the ``.partial`` stays, to be continued."""
        self._raw.close()
        self._file.close()

    def _set_status(self, rows: Rows, status: Status) -> None:
        self._put(STATUS, int(rows[0]), np.full(rows.size, status, STATUS_DTYPE))
        self._status[rows] = status

    def _put(self, name: str, row: int, values: Values) -> None:
        """Writes consecutive rows of a dataset, the first of them ``row``."""
        offset, dtype, row_bytes = self._places[name]
        assert values.dtype == dtype
        assert values.nbytes % row_bytes == 0
        with writing(self.path):
            write_bytes(self._raw, offset + row * row_bytes, values)


def _spans(rows: Rows, chosen: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Cuts the ``chosen`` positions of ``rows`` where the rows are not consecutive."""
    if chosen.size:
        yield from np.split(chosen, np.flatnonzero(np.diff(rows[chosen]) != 1) + 1)


def _worst(values: Values) -> float:
    """The first number that is not finite, or else the one farthest from zero."""
    odd = values[~np.isfinite(values)]
    return float(odd.flat[0] if odd.size else values.flat[np.abs(values).argmax()])
