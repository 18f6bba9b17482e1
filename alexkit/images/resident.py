"""A pack of pixels that lies in the memory of the device that trains on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from alexkit.images.batches import BadRow, Batch, Remark
from alexkit.images.draws import Rows
from alexkit.images.packed import PixelPack
from alexkit.images.source import ImageSource

SHARE = 0.5
"""Of the memory that is free: the rest is for activations and what a library takes."""
_BLOCK_BYTES = 64 << 20


class Budget(NamedTuple):
    """What a source would take of a device's memory, and what is free there, in bytes."""

    needed: int
    free: int

    @property
    def fits(self) -> bool:
        return self.needed <= SHARE * self.free


def budget(source: ImageSource, device: torch.device) -> Budget | None:
    """Measured now; None where no pixels lie ready, or the device has no memory of its own."""
    if not isinstance(source, PixelPack) or device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return Budget(len(source) * source.side**2 * 3, free)


class ResidentPixels:
    """All pixels of a pack on ``device``; batches are gathered there, and nothing is copied
    while training goes on.

    Args:
        source: read once, in blocks.
        device: any; of use where memory is the device's own.

    Attributes:
        side: S, of the squares as they are in the pack.
    """

    def __init__(self, source: PixelPack, device: torch.device) -> None:
        self.source = source
        self.side = source.side
        shape = (len(source), source.side, source.side, 3)
        self._pixels = torch.empty(shape, dtype=torch.uint8, device=device)
        step = max(1, _BLOCK_BYTES // (source.side**2 * 3))
        for first in range(0, len(source), step):
            block = source.stored_pixels(first, first + step)
            self._pixels[first : first + step] = torch.from_numpy(np.array(block))
        self._notes = source.noted()
        self._good = source.good

    def batches(
        self, rows: Rows, *, batch_size: int, side: int | None = None
    ) -> Iterator[Batch]:
        """As :func:`~alexkit.images.batches.read_batches` of the same rows, to the bit.

        Args:
            rows: (N) int64, in the order wanted.
            side: of the centre square, as
                :meth:`~alexkit.images.preprocess.Preprocess.square` cuts it from the whole
                one; None is the whole.
        """
        top = 0 if side is None else round((self.side - side) / 2)
        end = self.side if side is None else top + side
        for first in range(0, len(rows), batch_size):
            part = rows[first : first + batch_size]
            good = part[self._good[part]]
            index = torch.from_numpy(good).to(self._pixels.device)
            pixels = self._pixels.index_select(0, index)[:, top:end, top:end]
            yield Batch(
                rows=good,
                pixels=pixels,
                labels=torch.from_numpy(self.source.labels[good].astype(np.int64)),
                bad=tuple(self._bad(row) for row in part[~self._good[part]].tolist()),
                remarks=tuple(
                    Remark(row, self.source.record(row).path, self._notes[row])
                    for row in good.tolist()
                    if self._notes.get(row)
                ),
                places=np.flatnonzero(self._good[part]),
                size=len(part),
            )

    def _bad(self, row: int) -> BadRow:
        reason = self._notes.get(row) or "not packed"
        return BadRow(row, self.source.record(row).path, reason)
