"""Squares as JPEG files, for a pack that is small rather than exact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import simplejpeg

from alexkit.images.batches import BadRow, Reader, Remark, Told, sorted_out
from alexkit.images.crew import Crew
from alexkit.images.decode import decode
from alexkit.images.draws import Rows
from alexkit.images.jpeg import START
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource

QUALITY = 90
SUBSAMPLING = "444"
"""Colour at full resolution. On 400 ImageNet photos, squares of 256, torchvision's weights:
at quality 90 an image takes 26 kB, its values are 2.2 grey levels off on average, and its
pool5 features 6 % of their length. Halved colour ("420") is farther off at any quality:
21 kB, 2.7 and 13 % at 90; 37 kB, 1.8 and 8 % at 97."""

_AHEAD = 2
"""Batches in work besides the one that is waited for."""


@dataclass(frozen=True)
class JpegEncoding:
    """How squares become JPEG files; ``quality`` is 1 to 100 on libjpeg's scale."""

    quality: int = QUALITY

    def to_record(self) -> dict[str, Any]:
        """JSON-safe; with it, and the same encoder, come the same bytes."""
        return {
            "format": "JPEG",
            "quality": self.quality,
            "subsampling": ":".join(SUBSAMPLING),
            "encoder": f"simplejpeg {simplejpeg.__version__}",
        }


@dataclass(frozen=True)
class EncodedBatch:
    """Consecutive rows as JPEG files.

    Attributes:
        files: one a row; empty for a row that could not be decoded.
        bad: the rows that could not.
        remarks: what was odd about the others.
    """

    files: tuple[bytes, ...]
    bad: tuple[BadRow, ...]
    remarks: tuple[Remark, ...]


def read_encoded(
    source: ImageSource,
    rows: Rows,
    preprocess: Preprocess,
    encoding: JpegEncoding,
    *,
    batch_size: int,
    threads: int,
) -> Iterator[EncodedBatch]:
    """Reads, decodes, squares and encodes ``rows`` in their order, with threads that work
    ahead. What comes out does not depend on ``threads``. Leaving early leaves none behind.

    An image that is a JPEG of just these pixels already keeps its own bytes.

    Args:
        rows: (N) int64.
        preprocess: of which :meth:`~Preprocess.train_square` and ``exif`` count.
        batch_size, threads: at least 1.
    """
    read = Reader(source, exif=preprocess.exif)

    def encode(row: int) -> tuple[bytes, Told | None]:
        rgb, told = read(row)
        if rgb is None:
            return b"", told
        if rgb.shape[:2] == (preprocess.resize, preprocess.resize):
            own = source.read(row)
            if own.startswith(START):
                found = decode(own, exif=False)
                if not found.remark and np.array_equal(found.rgb, rgb):
                    return own, told
        return encode_jpeg(preprocess.train_square(rgb), encoding), told

    batches = (
        [partial(encode, row) for row in rows[first : first + batch_size].tolist()]
        for first in range(0, len(rows), batch_size)
    )
    for done in Crew(threads, "alexkit-encode").in_order(batches, _AHEAD):
        yield EncodedBatch(
            tuple(data for data, _ in done), *sorted_out(told for _, told in done)
        )


def encode_jpeg(rgb: Any, encoding: JpegEncoding) -> bytes:
    """(H, W, 3) uint8 as a baseline JPEG file."""
    data: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(rgb), encoding.quality, "RGB", SUBSAMPLING
    )
    return data
