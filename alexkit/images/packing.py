"""The writer of a pack, which survives any kill.

Each block of rows goes straight to the place the skeleton gave it, JPEG files to the end of
those before them: pixels, notes and checksum first, then the statuses, in one write. A block
whose rows have a status is therefore whole, whatever happened to the process after; one
caught in the middle is written again. (A power cut is another matter: bytes are forced to
the disk at the end.)
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import DamagedFile, FileMismatch, OutOfSpace, UsageError
from alexkit.images.batches import Batch
from alexkit.images.budget import Budget, budget_of
from alexkit.images.encode import EncodedBatch, JpegEncoding
from alexkit.images.hollow import HollowFile
from alexkit.images.pack import (
    BLOCK_ROWS,
    END,
    JPEG,
    JPEG_CHECKS,
    LEAST_JPEG,
    NOTE,
    NOTE_BYTES,
    PIXEL_CHECKS,
    PIXELS,
    ROW_CHECK,
    STATUS,
    Array,
    Status,
    jpeg_length,
    read_tables,
    recipe_of,
    skeleton,
)
from alexkit.images.packed import JpegPack, PackSource, open_pack, pack_of
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource
from alexkit.whole_file import check_free, partial_path, whole_file, writing


class PackWriter:
    """A pack in the making; from :func:`begin_pack`, in a ``with`` statement.

    Leaving it without :meth:`finish` keeps the ``.partial`` for the next time.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = partial_path(path)
        with writing(path):
            self._raw = os.open(self.partial, os.O_RDWR)
        try:
            _lock(self._raw, path)
            if os.fstat(self._raw).st_ino != os.stat(self.partial).st_ino:
                raise _in_use(path)
            self._tables = read_tables(self.partial)
            self._places = self._tables.places
            self._source = pack_of(self.partial, self._tables)
        except BaseException:
            os.close(self._raw)
            raise

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._raw)

    @property
    def done(self) -> int:
        """See :attr:`PackSource.done`."""
        return self._source.done

    def unreadable(self) -> dict[int, str]:
        """Row -> why, of the finished rows that have no pixels."""
        done, status = self.done, self._source.status
        return {
            row: note
            for row, note in self._source.noted().items()
            if row < done and status[row] == Status.UNREADABLE
        }

    def append(self, first: int, batch: Batch | EncodedBatch) -> int:
        """Writes the block that begins at row ``first``; no kill can lose it afterwards.

        Args:
            first: equal to :attr:`done`.
            batch: the rows ``first`` to ``first + BLOCK_ROWS`` (or the last row), in order;
                encoded for a pack of JPEGs.

        Returns:
            The row after the last one written.

        Raises:
            OutOfSpace: the disk is full or gone; the block may or may not be written.
        """
        count = min(BLOCK_ROWS, len(self._source) - first)
        assert first % BLOCK_ROWS == 0
        notes = np.zeros(count, f"S{NOTE_BYTES}")
        status = np.full(count, Status.DONE, np.uint8)
        for remark in batch.remarks:
            notes[remark.row - first] = _cut(remark.text)
        for bad in batch.bad:
            notes[bad.row - first] = _cut(bad.reason)
            status[bad.row - first] = Status.UNREADABLE
        if isinstance(batch, EncodedBatch):
            self._append_files(first, count, batch)
        else:
            self._append_pixels(first, count, batch)
        self._put(NOTE, first, notes)
        self._put(STATUS, first, status)
        return first + count

    def finish(self) -> None:
        """Gives the file its name; every row must be finished.

        Raises:
            OutOfSpace: the disk is full or gone.
        """
        assert self.done == len(self._source)
        if isinstance(self._source, JpegPack):
            self._close_files(self._source.bytes_before(len(self._source)))
        self._put(ROW_CHECK, 0, np.frombuffer(self._source.rows_digest(), np.uint8))
        with writing(self.path):
            os.fsync(self._raw)
            os.replace(self.partial, self.path)

    def discard(self) -> None:
        """Removes the file: nothing in it is worth continuing."""
        self.partial.unlink()

    def _append_pixels(self, first: int, count: int, batch: Batch) -> None:
        assert len(batch.rows) + len(batch.bad) == count
        side = self._source.side
        pixels = np.zeros((count, side, side, 3), np.uint8)
        pixels[batch.rows - first] = batch.pixels.numpy()
        self._put(PIXELS, first, pixels)
        self._put(PIXEL_CHECKS, first // BLOCK_ROWS, _digest(pixels.data))

    def _append_files(self, first: int, count: int, batch: EncodedBatch) -> None:
        assert isinstance(self._source, JpegPack)
        assert len(batch.files) == count
        begin, data = self._source.bytes_before(first), b"".join(batch.files)
        lengths = np.array([len(file) for file in batch.files], np.int64)
        self._put(JPEG, begin, np.frombuffer(data, np.uint8))
        self._put(END, first, begin + np.cumsum(lengths))
        self._put(JPEG_CHECKS, first // BLOCK_ROWS, _digest(data))

    def _close_files(self, length: int) -> None:
        """Ends the file after the last image, and lets HDF5 know."""
        offset = self._places[JPEG][0]
        padded = max(length, LEAST_JPEG)
        with writing(self.path):
            # What a kill left behind the last block, should it be longer; then zeros.
            os.ftruncate(self._raw, offset + length)
            os.ftruncate(self._raw, offset + padded)
        for at, matters, values in jpeg_length(self._tables, padded):
            found = np.frombuffer(os.pread(self._raw, len(values), at), np.uint8)
            count = len(found)
            self._write(np.where(matters[:count], values[:count], found), at)
        assert read_tables(self.partial).places[JPEG][::2] == (offset, (padded,))

    def _put(self, name: str, first: int, values: Array) -> None:
        """Writes consecutive entries of a dataset, ``first`` the first of them."""
        offset, dtype, shape = self._places[name]
        assert values.dtype == dtype
        self._write(values, offset + first * dtype.itemsize * int(np.prod(shape[1:])))

    def _write(self, values: Array, at: int) -> None:
        data = values.reshape(-1).view(np.uint8).data
        with writing(self.path):
            while data:
                written = os.pwrite(self._raw, data, at)
                data, at = data[written:], at + written


def begin_pack(
    path: Path,
    source: ImageSource,
    preprocess: Preprocess,
    provenance: Mapping[str, Any],
    *,
    encoding: JpegEncoding | None = None,
    overwrite: bool = False,
    threads: int = 1,
    tell: Callable[[Budget], None] = lambda _: None,
) -> PackWriter:
    """Begins a pack of ``preprocess.train_square``, or goes on with an interrupted one.

    Args:
        path: the file to be; until :meth:`PackWriter.finish` it is ``<path>.partial``.
        source: what is packed; every row of it, in its order.
        preprocess: of which the side and :data:`RECIPE_FIELDS` count.
        provenance: JSON-safe; an interrupted pack is continued only with an equal one.
        encoding: keep JPEG files, made so; otherwise pixels.
        overwrite: a finished pack may be replaced (when the new one is complete), and an
            interrupted one that does not fit may be thrown away.
        threads: that encode some images, to know what JPEG files take.
        tell: hears of the space it takes, before the first byte is written.

    Raises:
        OutputExists: a finished pack is there.
        UsageError: ``path`` is a folder, or another process is writing it.
        FileMismatch: the interrupted pack is of something else; the message names what.
        OutOfSpace: the disk is too small, full, read-only, or not ours to write.
    """
    check_free(path, overwrite)
    provenance = {**provenance, "preprocessing": recipe_of(preprocess)}
    if encoding is not None:
        provenance["encoding"] = encoding.to_record()
    partial = partial_path(path)
    begun: PackSource | HollowFile | None
    begun = _to_continue(partial, provenance, discard=overwrite)
    if begun is None:
        if partial.exists():
            with writing(path), open(partial, "rb") as old:
                _lock(old.fileno(), path)
        jpeg = encoding is not None
        begun = skeleton(source, preprocess.resize, provenance, jpeg=jpeg)
    place = Path(os.path.abspath(path)).parent
    place = next(parent for parent in (place, *place.parents) if parent.is_dir())
    budget = budget_of(place, source, preprocess, encoding, begun, threads)
    tell(budget)
    if budget.rest > budget.free:
        about = "about " if budget.measured else ""
        more = " more" if budget.continues else ""
        raise OutOfSpace(
            f"{path} needs {about}{budget.rest / 1e9:.3g} GB{more}, and"
            f" {budget.free / 1e9:.3g} GB are free",
            hint="free some space; the same command then continues"
            if budget.continues
            else "free some space, choose another --out, or a smaller --size",
        )
    if isinstance(begun, HollowFile):
        _pour(path, begun)
    return PackWriter(path)


def _to_continue(
    partial: Path, provenance: Mapping[str, Any], *, discard: bool
) -> PackSource | None:
    if not partial.exists():
        return None
    try:
        begun = open_pack(partial, unfinished=True)
    except DamagedFile as error:
        if discard:
            return None
        raise DamagedFile(
            error.message, hint=f"delete {partial} or add --overwrite to start again"
        ) from error
    found = begun.provenance
    names = sorted(found.keys() | provenance.keys())
    different = [name for name in names if found.get(name) != provenance.get(name)]
    if different and not discard:
        raise FileMismatch(
            f"{partial} is of an interrupted run with another {' and '.join(different)}",
            hint="repeat its settings, choose another --out, or add --overwrite",
        )
    return None if different else begun


def _digest(data: Any) -> Array:
    return np.frombuffer(hashlib.sha256(data).digest(), np.uint8)


def _lock(raw: int, path: Path) -> None:
    """Holds off other writers until ``raw`` is closed, where the file system can."""
    try:
        fcntl.flock(raw, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path) from None
    except OSError:  # a file system without locks
        return


def _in_use(path: Path) -> UsageError:
    return UsageError(
        f"another process is writing {path}",
        hint="wait until that one has finished, or choose another --out",
    )


def _pour(path: Path, hollow: HollowFile) -> None:
    """Writes ``<path>.partial`` with every dataset in its place and no row done."""
    partial = partial_path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(partial, partial.with_name(partial.name + ".new")) as raw:
            hollow.pour(raw)


def _cut(text: str) -> bytes:
    """``text`` cut to the room a note has, at a character."""
    return text.encode("utf-8", "replace")[:NOTE_BYTES].decode("utf-8", "ignore").encode()
