"""Batches of decoded squares, in a fixed order, with threads that read ahead."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
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
class OwnDecoder(Protocol):
    """What a source has besides when it knows more of its images than their bytes tell."""

    def decoded(self, row: int) -> Decoded:
        """A row as pixels, maybe read-only, as :func:`~alexkit.images.decode.decode` would;
        safe to call from several threads at once.

        Raises:
            UnreadableImage: the row has none, with the reason.
        """
        ...


@runtime_checkable
class ReadyPixels(OwnDecoder, Protocol):
    """What a source has besides when its images are decoded already, as in a pack of pixels.

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


Told = BadRow | Remark


def sorted_out(
    told: Iterable[Told | None],
) -> tuple[tuple[BadRow, ...], tuple[Remark, ...]]:
    """What is told of some rows, by what it is."""
    kept = list(told)
    return (
        tuple(one for one in kept if isinstance(one, BadRow)),
        tuple(one for one in kept if isinstance(one, Remark)),
    )


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
    An :class:`OwnDecoder` is asked for its pixels.
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
    read = Reader(source, exif=exif, at_least=at_least)
    ready = source if isinstance(source, ReadyPixels) else None
    corner = None if ready is None else _corner(to_square, ready.side)
    copy = None if ready is None or corner is None else partial(_copy, ready, *corner)
    slots = (
        _Slots(
            source, own, places, len(part), read, to_square, _room(len(own), side, pin), copy
        )
        for part in whole
        for places in [np.arange(rank, len(part), ranks)]
        for own in [part[places]]
    )
    if threads == 0:
        for one in slots:
            yield one.filled(range(len(one.rows))).batch()
        return
    ahead = max(2, -(-threads * _AHEAD_IMAGES * ranks // batch_size))

    def tasks_of(one: _Slots) -> list[Callable[[], _Slots]]:
        every = range(len(one.rows))
        share = (
            max(1, min(_SHARE, len(every) // (4 * threads))) if ready is None else _READY_SHARE
        )
        # One at least, where other ranks have all the rows.
        begins = range(0, max(1, len(every)), share)
        return [partial(one.filled, every[first : first + share]) for first in begins]

    for filled in Crew(threads, "alexkit-decode").in_order(map(tasks_of, slots), ahead):
        yield filled[0].batch()


class Reader:
    """A row of a source as pixels, by the source itself where it can, else by :func:`decode`.

    Args:
        source: its ``read`` may be called from several threads.
        exif, at_least: see :func:`~alexkit.images.decode.decode`.
    """

    def __init__(self, source: ImageSource, *, exif: bool, at_least: int = 0) -> None:
        self._source = source
        self._decoded = (
            source.decoded
            if isinstance(source, OwnDecoder)
            else lambda row: decode(source.read(row), exif=exif, at_least=at_least)
        )

    def __call__(self, row: int) -> tuple[Pixels | None, Told | None]:
        """(H, W, 3) uint8, None where there is no image; and what is to be told of it."""
        try:
            found = self._decoded(row)
        except UnreadableImage as error:
            return None, BadRow(row, self._source.record(row).path, error.message)
        if not found.remark:
            return found.rgb, None
        return found.rgb, Remark(row, self._source.record(row).path, found.remark)


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


@dataclass
class _Slots:
    """A batch being filled; each slot is written by one thread."""

    source: ImageSource
    rows: Rows
    places: Rows
    size: int
    read: Reader
    to_square: ToSquare
    pixels: torch.Tensor
    copy: Callable[[Rows, Pixels], npt.NDArray[np.bool_]] | None
    told: dict[int, Told] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._array = self.pixels.numpy()

    def filled(self, slots: range) -> _Slots:
        """Reads and squares images, or notes why not."""
        todo = np.arange(slots.start, slots.stop)
        if self.copy is not None:
            todo = todo[~self.copy(self.rows[todo], self._array[slots.start : slots.stop])]
        for slot in todo.tolist():
            rgb, told = self.read(int(self.rows[slot]))
            if rgb is not None:
                self._array[slot] = self.to_square(rgb)
            if told is not None:
                self.told[slot] = told
        return self

    def batch(self) -> Batch:
        """The batch without its bad slots, once every slot is filled."""
        rows, places, pixels = self.rows, self.places, self.pixels
        bad, remarks = sorted_out(self.told[slot] for slot in sorted(self.told))
        if bad:
            good = [i for i in range(len(rows)) if not isinstance(self.told.get(i), BadRow)]
            rows, places, pixels = rows[good], places[good], pixels[good]
        return Batch(
            rows=rows,
            places=places,
            size=self.size,
            pixels=pixels,
            labels=torch.from_numpy(self.source.labels[rows].astype(np.int64)),
            bad=bad,
            remarks=remarks,
        )
