"""Batches of decoded squares, in a fixed order, with threads that read ahead."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch

from alexkit.errors import UnreadableImage
from alexkit.images.crew import Crew
from alexkit.images.decode import Decoded, decode
from alexkit.images.draws import Rows, words
from alexkit.images.preprocess import Pixels
from alexkit.images.source import ImageSource

ToSquare = Callable[[Pixels], Pixels]
"""(H, W, 3) uint8 -> (S, S, 3) uint8, S always the same."""


@runtime_checkable
class ReadyPixels(Protocol):
    """What a source has besides when its images are decoded already, as in a pack.

    Attributes:
        side: S, of every image.
    """

    side: int

    def plain(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(n) whether a row has an image and there is nothing to tell of it."""
        ...

    def copy(self, rows: Rows, top: int, left: int, out_nhwc: Pixels) -> None:
        """The squares at ``top`` and ``left`` of ``rows``, those without an image included;
        the interpreter's lock is let go for many of them at a time."""
        ...

    def pixels(self, row: int) -> Decoded:
        """The pixels of a row, maybe read-only; safe to call from several threads at once.

        Raises:
            UnreadableImage: the row has none, with the reason.
        """
        ...


@runtime_checkable
class OwnDecoder(Protocol):
    """What a source has besides when it knows more of its images than their bytes tell."""

    def decoded(self, row: int) -> Decoded:
        """A row as pixels, as :func:`~alexkit.images.decode.decode` would; safe to call from
        several threads at once.

        Raises:
            UnreadableImage: the row has none, with the reason.
        """
        ...


_AHEAD_IMAGES = 16
"""How many images a thread may have waiting, at least; keeps small batches from starving."""

_SHARE = 4
"""Images a thread takes at a time where a batch has that many several times for each thread:
one by one, handing them over takes 2 % of the time."""

_READY_SHARE = 32
"""Ready pixels a thread takes at a time: handing over a single one costs more than it does."""

_SIDES = 1 << 12
"""Squares up to here have a number of 24 bits for each pixel's place."""


@dataclass(frozen=True)
class BadRow:
    """An image that could not be decoded: its row, its path, and why."""

    row: int
    path: str
    reason: str


@dataclass(frozen=True)
class Remark:
    """An image that was repaired or converted on the way: its row, its path, and how."""

    row: int
    path: str
    text: str


@dataclass(frozen=True)
class Batch:
    """Consecutive rows, those that could not be decoded left out.

    Attributes:
        rows: (B) int64, the source's rows; B may be 0.
        pixels: (B, S, S, 3) uint8, RGB, on the CPU.
        labels: (B) int64, -1 = none.
        bad: the rows that were left out.
        remarks: what was odd about rows that are in.
        places: (B) int64, where in the batch of all processes each row is.
        size: rows of that batch, those that could not be decoded included.
    """

    rows: Rows
    pixels: torch.Tensor
    labels: torch.Tensor
    bad: tuple[BadRow, ...]
    remarks: tuple[Remark, ...]
    places: Rows
    size: int


def epoch_order(rows: Rows, *, seed: int, epoch: int) -> Rows:
    """A permutation of ``rows``, a pure function of ``seed``, ``epoch`` and the row numbers.

    Rows are sorted by a hash of (seed, epoch, row), so leaving one out moves no other.

    Args:
        rows: (N) int64.

    Returns:
        (N) int64, the same rows.
    """
    keys = words("order", seed, epoch, rows, 1)[:, 0]
    return rows[np.lexsort((rows, keys))]


def read_batches(
    source: ImageSource,
    rows: Rows,
    to_square: ToSquare,
    *,
    batch_size: int,
    threads: int,
    exif: bool,
    at_least: int = 0,
    rank: int = 0,
    ranks: int = 1,
    pin: bool = False,
) -> Generator[Batch]:
    """Reads, decodes and squares ``rows`` in their order; the last batch may be shorter.

    With ``ranks`` processes, ``batch_size`` is of all of them together, and each gets every
    ``ranks``-th image of a batch, beginning with its own number: the images of a step are the
    same for any number of them. A last batch of fewer images leaves some with no row.

    Threads of this process work ahead by two batches, or by a few images each when batches
    are small; Pillow and libjpeg-turbo let go of the interpreter's lock while they work.
    A source with :class:`ReadyPixels` is asked for those, and nothing is decoded.
    What comes out does not depend on ``threads``. Leaving the loop early, by ``break``,
    ``close`` or an error, waits for the images in work and leaves no thread behind.

    Args:
        source: where the bytes come from; its ``read`` is called from every thread.
        rows: (N) int64, in the order wanted.
        to_square: e.g. :meth:`Preprocess.square <alexkit.images.preprocess.Preprocess.square>`.
        batch_size: at least 1.
        threads: at least 0; 0 decodes in the calling thread, nothing ahead.
        exif, at_least: see :func:`~alexkit.images.decode.decode`; of no effect on ready pixels.
        rank, ranks: this process of how many.
        pin: page-locked pixels, from which a GPU copies while the processor goes on.

    Raises:
        Exception: whatever ``to_square`` or ``source`` raises, UnreadableImage excepted.
    """
    assert batch_size >= 1, batch_size
    assert threads >= 0, threads
    assert 0 <= rank < ranks, (rank, ranks)
    # The side is asked of the function, so that a batch of nothing but bad images has one.
    side = to_square(np.zeros((1, 1, 3), np.uint8)).shape[0]
    whole = (rows[first : first + batch_size] for first in range(0, len(rows), batch_size))
    decoded = decoder_of(source, exif=exif, at_least=at_least)
    ready = source if isinstance(source, ReadyPixels) else None
    corner = None if ready is None else _corner(to_square, ready.side)
    blocks = None if ready is None or corner is None else partial(_copy, ready, *corner)
    slots = (
        _Slots(
            source,
            own,
            places,
            len(part),
            decoded,
            to_square,
            _room(len(own), side, pin),
            blocks,
        )
        for part in whole
        for places in [np.arange(rank, len(part), ranks)]
        for own in [part[places]]
    )
    if threads == 0:
        for one in slots:
            one.fill(range(len(one.rows)))
            yield one.batch()
        return
    ahead = max(2, -(-threads * _AHEAD_IMAGES * ranks // batch_size))
    pool = Crew(threads, "alexkit-decode")
    try:
        waiting: deque[tuple[_Slots, list[Future[None]]]] = deque()
        for one in slots:
            slots_of = range(len(one.rows))
            share = _share_of(len(slots_of), threads) if ready is None else _READY_SHARE
            tasks = [
                pool.submit(one.fill, slots_of[first : first + share])
                for first in range(0, len(one.rows), share)
            ]
            waiting.append((one, tasks))
            if len(waiting) > ahead:
                yield _finished(*waiting.popleft())
        while waiting:
            yield _finished(*waiting.popleft())
    finally:
        pool.leave()


def _share_of(images: int, threads: int) -> int:
    return max(1, min(_SHARE, images // (4 * threads)))


def decoder_of(
    source: ImageSource, *, exif: bool, at_least: int = 0
) -> Callable[[int], Decoded]:
    """What makes pixels of a row: the source itself where it can, else :func:`decode`."""
    if isinstance(source, ReadyPixels):
        return source.pixels
    if isinstance(source, OwnDecoder):
        return source.decoded
    return lambda row: decode(source.read(row), exif=exif, at_least=at_least)


def _corner(to_square: ToSquare, side: int) -> tuple[int, int] | None:
    """Where ``to_square`` cuts its square out of one of ``side``; None where it does more
    than that, or does not say by what it makes of a square of places."""
    if side > _SIDES:
        return None
    y, x = np.mgrid[:side, :side]
    places = np.stack([y & 255, x & 255, y >> 8 << 4 | x >> 8], axis=-1).astype(np.uint8)
    cut = to_square(places)
    low_y, low_x, high = map(int, cut[0, 0])
    top, left = low_y | high >> 4 << 8, low_x | (high & 15) << 8
    expected = places[top : top + len(cut), left : left + len(cut)]
    return (top, left) if np.array_equal(cut, expected) else None


def _copy(
    source: ReadyPixels, top: int, left: int, rows: Rows, out_nhwc: Pixels
) -> npt.NDArray[np.bool_]:
    """Copies what lies ready, and says of which rows there is nothing to tell besides."""
    source.copy(rows, top, left, out_nhwc)
    return source.plain(rows)


def _room(images: int, side: int, pin: bool) -> torch.Tensor:
    """Memory for a batch; of the ordinary kind none is taken until a thread writes to it."""
    shape = (images, side, side, 3)
    if pin:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=True)
    return torch.from_numpy(np.empty(shape, np.uint8))


def _finished(slots: _Slots, tasks: list[Future[None]]) -> Batch:
    for task in tasks:
        task.result()
    return slots.batch()


@dataclass
class _Slots:
    """A batch being filled; each slot is written by one thread."""

    source: ImageSource
    rows: Rows
    places: Rows
    size: int
    decoded: Callable[[int], Decoded]
    to_square: ToSquare
    pixels: torch.Tensor
    blocks: Callable[[Rows, Pixels], npt.NDArray[np.bool_]] | None
    bad: dict[int, BadRow] = field(default_factory=dict)
    remarks: dict[int, Remark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._array = self.pixels.numpy()

    def fill(self, slots: range) -> None:
        """Reads and squares images, or notes why not."""
        todo = np.arange(slots.start, slots.stop)
        if self.blocks is not None:
            done = self.blocks(self.rows[todo], self._array[slots.start : slots.stop])
            todo = todo[~done]
        for slot in todo.tolist():
            self._fill(slot)

    def _fill(self, slot: int) -> None:
        row = int(self.rows[slot])
        try:
            decoded = self.decoded(row)
        except UnreadableImage as error:
            self.bad[slot] = BadRow(row, self.source.record(row).path, error.message)
            return
        self._array[slot] = self.to_square(decoded.rgb)
        if decoded.remark:
            self.remarks[slot] = Remark(row, self.source.record(row).path, decoded.remark)

    def batch(self) -> Batch:
        """The batch without its bad slots, once every slot is filled."""
        rows, places, pixels = self.rows, self.places, self.pixels
        if self.bad:
            good = [slot for slot in range(len(rows)) if slot not in self.bad]
            rows, places, pixels = rows[good], places[good], pixels[good]
        return Batch(
            rows=rows,
            places=places,
            size=self.size,
            pixels=pixels,
            labels=torch.from_numpy(self.source.labels[rows].astype(np.int64)),
            bad=tuple(self.bad[slot] for slot in sorted(self.bad)),
            remarks=tuple(self.remarks[slot] for slot in sorted(self.remarks)),
        )
