"""Images with the same bytes, found among all without reading most of them."""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexkit.errors import UnreadableImage
from alexkit.events import Reporter, Stage
from alexkit.images.source import SizedSource

END = 4096
"""Bytes compared first: compressed pixels, in which two images of the same size differ."""

_AT_ONCE = 256
"""Images between two looks at the clock."""

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Duplicates:
    """What was found.

    Attributes:
        groups: the rows of each image that is there repeatedly, ascending.
        compared: number of images that were compared with all others.
    """

    groups: list[list[int]]
    compared: int


def digest(data: bytes) -> bytes:
    """16 bytes that two images share if and only if their bytes are equal (BLAKE2b)."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def equal_rows(digests: Iterable[tuple[int, bytes]]) -> list[list[int]]:
    """Rows whose digests are equal, a list for each that is there repeatedly."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, found in digests:
        rows[found].append(row)
    return [sorted(equal) for equal in rows.values() if len(equal) > 1]


def find_duplicates(
    source: SizedSource,
    *,
    known: Mapping[int, bytes],
    threads: int,
    seconds: float,
    report: Reporter,
) -> Duplicates:
    """Compares sizes, then ends of the same size, then all bytes of what still is equal.

    Where many images share their sizes, as those of a million do, the ends cost the time: one
    short read each. What cannot be read equals nothing.

    Args:
        known: digests of rows that were read already; see :func:`digest`.
        threads: at least 1.
        seconds: after which no further size is begun; what has the sizes before is compared.
        report: told how far it is, in images that share their size.
    """
    began = time.monotonic()
    sizes = source.sizes()
    candidates = _sharing_size(sizes)
    groups: list[list[int]] = []
    with (
        Stage(report, "duplicates", len(candidates), "images") as stage,
        ThreadPoolExecutor(threads, thread_name_prefix="alexkit-duplicates") as pool,
    ):

        def equal(rows: list[int], read: Callable[[int], bytes]) -> list[list[int]]:
            # One task a thread: a task costs as much as a short read.
            shares = [rows[start::threads] for start in range(min(threads, len(rows)))]
            found = pool.map(lambda share: [(row, read(row)) for row in share], shares)
            return equal_rows(pair for pairs in found for pair in pairs if pair[1])

        def end(row: int) -> bytes:
            return _size_and_end(source, int(sizes[row]), row)

        def whole(row: int) -> bytes:
            return known.get(row) or _digest_of(source, row)

        for piece in _pieces(candidates, sizes[candidates]):
            if time.monotonic() - began > seconds:
                break
            for rows in equal(piece.tolist(), end):
                groups += equal(rows, whole)
            stage.advance(len(piece))
    return Duplicates(sorted(groups), len(source) - (len(candidates) - stage.done))


def _sharing_size(sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n) int64: the rows whose size another one has, by size; empty files left out."""
    order = np.argsort(sizes, kind="stable")
    ordered = sizes[order]
    same = ordered[1:] == ordered[:-1]
    shared = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    chosen: npt.NDArray[np.int64] = order[(shared & (ordered > 0))[: len(order)]]
    return chosen


def _pieces(
    rows: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    """Rows in pieces of some hundred that part no two rows of the same size."""
    begins = np.flatnonzero(np.diff(sizes)) + 1
    # The first row of a new size at or after each multiple.
    wanted = np.searchsorted(begins, np.arange(_AT_ONCE, len(rows), _AT_ONCE))
    cuts = np.unique(begins[wanted[wanted < len(begins)]])
    return np.split(rows, cuts) if len(rows) else []


def _size_and_end(source: SizedSource, size: int, row: int) -> bytes:
    try:
        return size.to_bytes(8, "big") + source.end(row, END)
    except UnreadableImage:
        return b""


def _digest_of(source: SizedSource, row: int) -> bytes:
    try:
        return digest(source.read(row))
    except UnreadableImage:
        return b""
