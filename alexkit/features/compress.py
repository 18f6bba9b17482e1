"""A finished feature file, rewritten with an HDF5 filter.

Rows are written uncompressed, as only such a file survives a kill at any moment; the copy is
made when the last row is done, and takes the place of the other only when it is whole.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from alexkit.choices import Compress
from alexkit.features.layout import BLOCK_BYTES, CLASSES, FEATURES, not_sealed
from alexkit.features.opening import opened, reading
from alexkit.features.seal import append_seal
from alexkit.whole_file import whole_file, writing

CHUNK_BYTES = 2**18
"""About how much is compressed together: whole rows, at least one."""

Progress = Callable[[int], None]


def copy_path(path: Path) -> Path:
    """Where the compressed copy is written until it is whole."""
    return path.with_name(path.name + ".compressing")


def compress_file(partial: Path, path: Path, how: Compress, progress: Progress) -> None:
    """Writes the content of ``partial``, a whole feature file, to ``path``, compressed.

    Values are the same, in chunks of whole rows, shuffled by bytes and filtered.

    Args:
        how: lzf (fast, known to h5py alone) or gzip (level 4, known to every HDF5 reader).
        progress: told the bytes of features done; what it raises ends the copy.

    Raises:
        OutOfSpace: the disk is full; it takes as much again as ``partial`` while it works.
    """
    assert how is not Compress.NONE
    with writing(path), whole_file(path, copy_path(path)) as raw:
        # HDF5 crashes when the disk fills under it, so the space is taken before.
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(raw.fileno(), 0, partial.stat().st_size)
        sink = _Sink(raw)
        with (
            reading(partial),
            opened(partial, "r") as source,
            h5py.File(sink, "w") as target,
        ):
            _copy(source, target, how, progress)
            target.flush()
            left_out = not_sealed(target)
        sink.close_up()
        append_seal(raw, left_out)


def _copy(source: h5py.File, target: h5py.File, how: Compress, progress: Progress) -> None:
    for name in source.attrs:
        value, dtype = source.attrs[name], source.attrs.get_id(name).dtype
        target.attrs.create(name, value, dtype=dtype)
    source.copy("rows", target)
    source.copy(CLASSES, target)
    done = 0
    for name, layer in source[FEATURES].items():
        row_bytes = layer.dtype.itemsize * int(np.prod(layer.shape[1:]))
        chunk = min(len(layer), max(1, CHUNK_BYTES // row_bytes))
        dataset = target.create_dataset(
            f"{FEATURES}/{name}",
            shape=layer.shape,
            dtype=layer.dtype,
            chunks=(chunk, *layer.shape[1:]),
            compression=how.value,
            shuffle=True,
            fillvalue=np.nan,
        )
        step = chunk * max(1, BLOCK_BYTES // (chunk * row_bytes))
        for first in range(0, len(layer), step):
            block = layer[first : first + step]
            dataset[first : first + step] = block
            done += block.nbytes
            progress(done)


class _Sink(io.RawIOBase):
    """A file for HDF5 to write into that has its space already and never refuses: an error
    is kept, for :meth:`close_up` to raise when HDF5 is out of the way."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._size = 0  # what HDF5 wrote, not what was taken
        self._error: OSError | None = None

    def close_up(self) -> None:
        """Gives back the space that was not needed.

        Raises:
            OSError: something could not be written.
        """
        if self._error is not None:
            raise self._error
        self._raw.truncate(self._size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            offset, whence = offset + self._size, io.SEEK_SET
        return self._raw.seek(offset, whence)

    def truncate(self, size: int | None = None, /) -> int:
        self._size = self._raw.tell() if size is None else size
        return self._size

    def readinto(self, buffer: Any, /) -> int:
        return self._raw.readinto(buffer)  # type: ignore[attr-defined, no-any-return]

    def write(self, data: Any, /) -> int:
        count = memoryview(data).nbytes
        try:
            self._raw.write(data)
            self._size = max(self._size, self._raw.tell())
        except OSError as error:
            self._error = self._error or error
        return count
