"""One look at every image: what it is, whether it can be used, and what it equals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from alexkit.errors import UnreadableImage
from alexkit.images.crew import Crew
from alexkit.images.decode import decode
from alexkit.images.draws import Rows
from alexkit.images.duplicates import digest
from alexkit.images.source import ImageSource

OTHER = "other"
_BEGINNINGS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"jP  \r\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"P5", "PPM"),
    (0, b"P6", "PPM"),  # also what a pack gives its pixels as
)
"""Where a format's mark stands, the mark, and the format."""

_AHEAD = 8
"""Images a thread may have waiting."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an image found.

    Attributes:
        row: the source's row.
        digest: of the encoded bytes (see :func:`~alexkit.images.duplicates.digest`); empty
            if they could not be read.
        size: of the encoded image, in bytes.
        format: by its first bytes; :data:`OTHER` for the rarer ones and for what is none.
        width, height: pixels, turned as the camera's tag says; 0 if it cannot be decoded.
        reason: why it cannot be decoded; "" if it can.
        remark: what decoding repairs or converts; see
            :class:`~alexkit.images.decode.Decoded`.
    """

    row: int
    digest: bytes
    size: int
    format: str
    width: int
    height: int
    reason: str
    remark: str


def look(source: ImageSource, row: int) -> Look:
    """Reads and decodes one image; what is wrong with it is in the answer, never raised."""
    try:
        data = source.read(row)
    except UnreadableImage as error:
        return Look(row, b"", 0, OTHER, 0, 0, error.message, "")
    same, kind = digest(data), format_of(data)
    try:
        decoded = decode(data, exif=True)
    except UnreadableImage as error:
        return Look(row, same, len(data), kind, 0, 0, error.message, "")
    height, width, _ = decoded.rgb.shape
    return Look(row, same, len(data), kind, width, height, "", decoded.remark)


def survey(source: ImageSource, rows: Rows, *, threads: int) -> Iterator[Look]:
    """Looks at ``rows`` in their order, with threads that work a little ahead.

    Leaving early leaves no thread behind.

    Args:
        rows: (N) int64.
        threads: at least 1.
    """
    tasks = ([partial(look, source, row)] for row in rows.tolist())
    for looks in Crew(threads, "alexkit-survey").in_order(tasks, threads * _AHEAD):
        yield from looks


def format_of(data: bytes) -> str:
    """The image format that the first bytes of a file announce."""
    for start, mark, name in _BEGINNINGS:
        if data[start : start + len(mark)] == mark:
            return name
    return OTHER
