"""JPEG through libjpeg-turbo, with its complaints heard.

Pillow ignores what libjpeg calls warnings, so a JPEG with damaged picture data comes out as
stripes or grey without a word. Here a warning ends in one of three ways: the damage is
outside the picture (metadata, the end marker) and the pixels are whole; or the picture data
is damaged and the image is refused; or the file is of a kind that only Pillow reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import simplejpeg

from alexkit.errors import UnreadableImage
from alexkit.images.limits import MAX_SCANS, REPAIR_HINT, refuse_bomb
from alexkit.images.preprocess import Pixels

START = b"\xff\xd8\xff"
"""The first three bytes of every JPEG."""

_END = b"\xff\xd9"
_SCAN_START = b"\xff\xda"
_SCAN, _BASELINE, _EXTENDED, _ADOBE = 0xDA, 0xC0, 0xC1, 0xEE
_NEEDED = {_ADOBE, 0xDB, 0xDD, *range(0xC0, 0xD0)}
"""Markers that decoding needs: Adobe's colour transform, DQT, DRI, SOFn, DHT, DAC."""

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""SOFn; byte 9 of the segment counts the components."""

_LEFT_OVER = re.compile(r"\d+ extraneous bytes before marker 0xd9")
_PICTURE_DAMAGED = ("Corrupt JPEG data", "Premature end of JPEG file")
"""How libjpeg's messages about lost picture data begin (``jerror.h``)."""


@dataclass(frozen=True)
class Jpeg:
    """What became of a JPEG.

    Attributes:
        rgb: (H, W, 3) uint8, or None where Pillow has to decode ``data``.
        data: the bytes, without what was damaged around the picture.
        remark: what was repaired or odd; "" for an ordinary file.
    """

    rgb: Pixels | None
    data: bytes
    remark: str


def read_jpeg(data: bytes, *, at_least: int = 0) -> Jpeg:
    """Decodes an RGB, YCbCr or grey JPEG equal to Pillow to the bit; checks the others.

    Args:
        data: the whole file.
        at_least: pixels. Where it is not 0, a photo whose short side is twice that or more is
            decoded at a few eighths of its size, by leaving out the high frequencies of each
            8 × 8 block: several times faster, and not exact.

    Raises:
        UnreadableImage: too large, too many scans, truncated, or the picture data is damaged.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except (ValueError, KeyError):  # KeyError: a chroma subsampling it has no name for
        return Jpeg(None, data, "")
    refuse_bomb(width, height)
    _refuse_many_scans(data)
    wanted = "CMYK" if space in ("CMYK", "YCCK") else "RGB"
    smaller = {}
    if at_least and min(height, width) >= 2 * at_least:
        smaller = {"min_height": at_least, "min_width": at_least, "min_factor": 2}
    try:
        pixels = simplejpeg.decode_jpeg(data, wanted, **smaller)
        remark = ""
    except ValueError as complaint:
        return _despite(str(complaint), data, wanted)
    return Jpeg(pixels if wanted == "RGB" else None, data, remark)


def _refuse_many_scans(data: bytes) -> None:
    """Raises UnreadableImage above :data:`~alexkit.images.limits.MAX_SCANS` scans."""
    if _has_one_scan(data) or data.count(_SCAN_START) <= MAX_SCANS:
        return
    # What follows the picture, a film perhaps, may hold those bytes by chance.
    picture = data[data.index(_SCAN_START) :].partition(_END)[0]
    if picture.count(_SCAN_START) > MAX_SCANS:
        raise UnreadableImage(f"a JPEG of more than {MAX_SCANS} scans", hint=REPAIR_HINT)


def _has_one_scan(data: bytes) -> bool:
    """Whether the headers, in good order, say that the first scan is the whole picture."""
    at, frame, components = 2, 0, b""
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] in _FRAMES:
            frame, components = data[at + 1], data[at + 9 : at + 10]
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return frame in (_BASELINE, _EXTENDED) and data[at + 4 : at + 5] == components


def _despite(complaint: str, data: bytes, wanted: str) -> Jpeg:
    """Decodes the picture alone and judges what libjpeg still says about it."""
    picture, complete = _picture_only(data)
    if not complete:
        raise _damaged(complaint)
    try:
        pixels = simplejpeg.decode_jpeg(picture, wanted)
    except ValueError as error:
        if _LEFT_OVER.search(str(error)):
            pixels = simplejpeg.decode_jpeg(picture, wanted, strict=False)
        elif str(error).startswith(_PICTURE_DAMAGED):
            raise _damaged(str(error)) from error
        else:
            return Jpeg(None, data, f"decoder said: {complaint}")
    remark = f"all pixels present, though the decoder said: {complaint}"
    return Jpeg(pixels if wanted == "RGB" else None, picture, remark)


def _damaged(complaint: str) -> UnreadableImage:
    return UnreadableImage(f"damaged or truncated: {complaint}", hint=REPAIR_HINT)


def _picture_only(data: bytes) -> tuple[bytes, bool]:
    """The file without its metadata and with an end marker.

    The second value is False where the end is missing and it shows only there: cut between
    two scans, libjpeg is content while detail or colour is gone.
    """
    kept = [data[:2]]
    frame, components = 0, b""
    at = 2
    while at + 4 <= len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD8:
            at += 1
            continue
        if marker == _SCAN:
            one_scan = frame in (_BASELINE, _EXTENDED) and data[at + 4 : at + 5] == components
            complete = one_scan or data.find(_END, at) >= 0
            return b"".join([*kept, data[at:], _END]), complete
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _NEEDED:
            kept.append(data[at:end])
        if marker in _FRAMES:
            frame, components = marker, data[at + 9 : at + 10]
        at = end
    return data, False
