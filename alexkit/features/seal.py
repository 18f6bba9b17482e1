"""A checksum behind a finished feature file, looked at before HDF5 sees it.

HDF5 trusts the structures of a file: where a bit of them has changed, on a disk or on the
way from one, the library may loop for ever or crash the process, and no error can be told.
So a finished file ends in a seal: which bytes are features or reasons, and the SHA-256 of all
the others, which are the structures, the attributes and the tables of rows. It lies behind
what HDF5 takes for the end of the file, where no reader looks; a program that changes the
file through HDF5 cuts it off.

    n pairs of int64      begin and end of the bytes that are not summed, ascending
    32 bytes              SHA-256 of the pairs, then of all other bytes before them
    int64                 n
    8 bytes               :data:`MARK`
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
import numpy.typing as npt

Extents = npt.NDArray[np.int64]

MARK = b"\x89akseal\n"
_DIGEST_BYTES = 32
_TAIL_BYTES = _DIGEST_BYTES + 8 + len(MARK)
_BLOCK_BYTES = 2**20
_OLDEST_HDF5 = b"\x89HDF\r\n\x1a\n\x00"
"""Signature and version of the superblock; the other versions have no seal."""
_END_AT = 40
"""Where that superblock has the end of the file, int64 (HDF5 File Format Specification,
II.A)."""


def extents_of(datasets: Iterable[h5py.Dataset]) -> Extents:
    """Where the values of some datasets lie: (n, 2) int64, begin and end, ascending."""
    found: list[tuple[int, int]] = []
    for dataset in datasets:
        if dataset.is_virtual:  # its values lie in other files
            continue
        if dataset.chunks is None:
            begin = dataset.id.get_offset()
            found.append((begin, begin + dataset.id.get_storage_size()))
        else:
            chunks: list[Any] = []
            dataset.id.chunk_iter(chunks.append)
            found += [(c.byte_offset, c.byte_offset + c.size) for c in chunks]
    merged: list[list[int]] = []
    for begin, end in sorted(found):
        if merged and begin == merged[-1][1]:
            merged[-1][1] = end
        else:
            merged.append([begin, end])
    return np.array(merged, "<i8").reshape(-1, 2)


def append_seal(raw: BinaryIO, extents: Extents) -> None:
    """Writes the seal behind a file that HDF5 has closed.

    Raises:
        OSError: the disk is full or gone.
    """
    size = raw.seek(0, os.SEEK_END)
    digest = _digest(raw, extents, size)
    count = len(extents).to_bytes(8, "little")
    tail = memoryview(extents.tobytes() + digest + count + MARK)
    raw.seek(size)
    while tail:  # an unbuffered file may take a part only
        tail = tail[raw.write(tail) :]


def seal_holds(path: Path) -> bool | None:
    """Whether the file is as it was sealed; None where it has no seal.

    A seal that was cut short does not hold: the file goes on behind HDF5's end.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as raw:
        size = raw.seek(0, os.SEEK_END)
        raw.seek(max(0, size - _TAIL_BYTES))
        tail = raw.read(_TAIL_BYTES)
        if not tail.endswith(MARK):
            return False if _goes_on(raw, size) else None
        count = int.from_bytes(tail[_DIGEST_BYTES : -len(MARK)], "little")
        end = size - len(tail) - 16 * count
        if end < 0:
            return False
        raw.seek(end)
        extents = np.frombuffer(raw.read(16 * count), "<i8").reshape(-1, 2)
        if (np.diff(extents.ravel(), prepend=0, append=end) < 0).any():
            return False
        return _digest(raw, extents, end) == tail[:_DIGEST_BYTES]


def seal_of(path: Path) -> bytes | None:
    """The SHA-256 in the seal of a file; None where it has no seal, or that does not hold.

    Raises:
        OSError: it cannot be read.
    """
    if seal_holds(path) is not True:
        return None
    with path.open("rb", buffering=0) as raw:
        raw.seek(-_TAIL_BYTES, os.SEEK_END)
        return raw.read(_DIGEST_BYTES)


def _goes_on(raw: BinaryIO, size: int) -> bool:
    """Whether a file is longer than HDF5 says in it."""
    raw.seek(0)
    head = raw.read(_END_AT + 8)
    return head.startswith(_OLDEST_HDF5) and size > int.from_bytes(head[_END_AT:], "little")


def _digest(raw: BinaryIO, extents: Extents, size: int) -> bytes:
    """Of the extents, and of the first ``size`` bytes that are in none."""
    found = hashlib.sha256(extents.tobytes())
    at = 0
    for begin, end in [*extents.tolist(), [size, size]]:
        raw.seek(at)
        while at < begin:
            block = raw.read(min(begin - at, _BLOCK_BYTES))
            if not block:
                break
            found.update(block)
            at += len(block)
        at = end
    return found.digest()
