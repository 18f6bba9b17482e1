"""From encoded bytes to RGB pixels; what is wrong with a bad image, and what was done."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

from alexkit.errors import UnreadableImage
from alexkit.images.jpeg import START, read_jpeg
from alexkit.images.limits import REPAIR_HINT, refuse_bomb
from alexkit.images.preprocess import Pixels
from alexkit.images.quiet import quiet_pillow

_FORMATS = (
    *("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"),
    *("ICO", "PCX", "SGI", "SUN"),
)
"""What Pillow may try. Not EPS, which starts another program, nor TGA and others that take
any bytes for an image."""

_OTHER_FILES = (
    (b"<!doctype", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<?xml", "an XML or SVG file"),
    (b"<svg", "an SVG file"),
    (b"version https://git-lfs", "a Git LFS pointer whose file was not fetched"),
    (b"%pdf", "a PDF"),
    (b"pk\x03\x04", "a zip archive"),
)
"""Beginnings of files that often stand where an image should, in lower case."""

_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")

_ORIENTATION = 0x0112
"""The EXIF tag; its values 1 to 8 are in EXIF 2.32, section 4.6.4."""

_STRIP_PIXELS = 1 << 22
"""Large images are converted in strips of rows, so that no second full copy is needed."""


@dataclass(frozen=True)
class Decoded:
    """An image as pixels.

    Attributes:
        rgb: (H, W, 3) uint8, C-contiguous.
        remark: what was repaired, converted with loss or left away, in words; "" for an
            ordinary image. Grey and palette images are ordinary: RGB holds them exactly.
    """

    rgb: Pixels
    remark: str


def decode(data: bytes, *, exif: bool, at_least: int = 0) -> Decoded:
    """Decodes an image of any common format; the bytes decide which, never a name.

    RGB, YCbCr and grey JPEGs go through libjpeg-turbo and equal Pillow's to the bit;
    everything else is Pillow's. Colour profiles are not applied (no ImageNet pipeline does).

    What is odd is settled the same way for every image and named in the remark:

    - alpha, or a transparent colour: laid on white;
    - CMYK, Lab: converted as Pillow does;
    - 16-bit grey: the high byte, so that white is the type's white, whatever the contents;
    - several frames or pages: the first one;
    - a JPEG whose metadata or end marker is damaged but whose picture data is whole.

    Never guessed: **an image with missing or damaged picture data is unreadable**, also when
    only its last rows are gone. Filling the gap with grey, as viewers do, would give a
    feature vector that is wrong with nothing to show it. For the same reason pixels in
    floating point or 32 bits are refused: nothing says which value is white.

    TIFF's orientation tag says how rows are stored and is obeyed in any case.

    Args:
        data: the whole encoded file.
        exif: turn the image as the camera's orientation tag says.
        at_least: see :func:`alexkit.images.jpeg.read_jpeg`; 0 decodes every pixel.

    Raises:
        UnreadableImage: with the reason; also above :data:`alexkit.images.limits.MAX_PIXELS`
            pixels, before memory is taken.
    """
    remarks: list[str] = []
    rgb: Pixels | None = None
    if data.startswith(START):
        jpeg = read_jpeg(data, at_least=at_least)
        rgb, picture = jpeg.rgb, jpeg.data
        remarks.append(jpeg.remark)
        # Pillow is slow to start; most photos that have been through a website carry no tag.
        orientation = _orientation_of(data) if exif and _may_be_turned(data) else 1
    else:
        picture, orientation = data, 1
    if rgb is None:
        rgb, more, orientation_read = _with_pillow(picture)
        remarks.extend(more)
        if not data.startswith(START):
            orientation = orientation_read if exif else 1
    if 2 <= orientation <= 8:
        rgb = np.ascontiguousarray(_turned(rgb, orientation))
        remarks.append(f"EXIF orientation {orientation} applied")
    return Decoded(rgb, ", ".join(filter(None, remarks)))


def _with_pillow(data: bytes) -> tuple[Pixels, list[str], int]:
    """Pixels, remarks and EXIF orientation of the first frame."""
    with quiet_pillow:
        try:
            with Image.open(io.BytesIO(data), formats=_formats()) as image:
                refuse_bomb(*image.size)
                image.load()
                rgb, remarks = _to_rgb(image)
                orientation = _orientation(image)
                remarks.append(_frames(image))
                return rgb, remarks, orientation
        except UnreadableImage:
            raise
        # Pillow's readers raise whatever a damaged file leads them into, MemoryError for a
        # header that lies about a size included.
        except Exception as error:
            raise UnreadableImage(_reason(error, data), hint=REPAIR_HINT) from error


def _to_rgb(image: Image.Image) -> tuple[Pixels, list[str]]:
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled_grey(image)
    see_through = image.has_transparency_data
    rgb = np.empty((image.height, image.width, 3), np.uint8)
    rows = max(1, _STRIP_PIXELS // image.width)
    shows_white = False
    for top in range(0, image.height, rows):
        part = image.crop((0, top, image.width, min(top + rows, image.height)))
        if see_through:
            pixels, mixed = _on_white(part)
            shows_white |= mixed
        else:
            pixels = np.asarray(part.convert("RGB"))
        rgb[top : top + rows] = pixels
    remark = {"CMYK": "CMYK converted", "LAB": "Lab converted"}.get(image.mode, "")
    return rgb, [remark, "alpha on white" if shows_white else ""]


def _on_white(image: Image.Image) -> tuple[Pixels, bool]:
    """The image over white, rounded to nearest; and whether any of the white shows."""
    rgba = np.asarray(image.convert("RGBA"))
    alpha = rgba[..., 3:]
    if alpha.min() == 255:
        return rgba[..., :3], False
    weight = alpha.astype(np.uint16)
    mixed = (rgba[..., :3] * weight + 255 * (255 - weight) + 127) // 255
    return mixed.astype(np.uint8), True


def _scaled_grey(image: Image.Image) -> tuple[Pixels, list[str]]:
    """16-bit grey as its high byte, which is also how Pillow reads 16-bit colour."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        what = "floating-point"
    elif low < 0 or high > 0xFFFF:
        what = "32-bit"
    else:
        grey = (values >> 8).astype(np.uint8)
        clear = values == image.info.get("transparency", -1)
        grey[clear] = 255
        rgb = np.repeat(grey[..., None], 3, axis=-1)
        remarks = [f"16-bit scaled (values {low} to {high})"]
        return rgb, [*remarks, "alpha on white"] if clear.any() else remarks
    raise UnreadableImage(
        f"{what} pixels ({low} to {high}): nothing says which value is white",
        hint="convert it to 8 or 16 bits a channel",
    )


def _frames(image: Image.Image) -> str:
    try:
        frames = getattr(image, "n_frames", 1)
    except Exception:  # a later frame is damaged; the first one is what is used
        return "first of several frames"
    return f"first of {frames} frames" if frames > 1 else ""


def _may_be_turned(data: bytes) -> bool:
    head = data[: 1 << 17]
    return b"Exif\0" in head or b"tiff:Orientation" in head


def _orientation_of(data: bytes) -> int:
    with quiet_pillow:
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "MPO")) as image:
                return _orientation(image)
        except Exception:  # metadata that Pillow cannot follow holds no orientation
            return 1


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged tag cannot be obeyed
        return 1
    return value if isinstance(value, int) else 1


def _turned(rgb: Pixels, orientation: int) -> Pixels:
    """Undoes the orientation 2 to 8: mirrored columns, rows, or the two axes exchanged."""
    if orientation >= 5:
        rgb = rgb.transpose(1, 0, 2)
    flip_rows = orientation in (3, 4, 7, 8)
    flip_columns = orientation in (2, 3, 6, 7)
    return rgb[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]


def _reason(error: Exception, data: bytes) -> str:
    """Why Pillow failed, in words that do not change from run to run."""
    if isinstance(error, Image.DecompressionBombError):
        return "its header asks for more pixels than any photo has"
    if not isinstance(error, UnidentifiedImageError):
        return f"damaged, or of an unsupported kind: {error or type(error).__name__}"
    if not data.strip(b"\0"):
        return "only zero bytes" if data else "the file is empty"
    if data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
        return "HEIC, which is not supported"
    start = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what in _OTHER_FILES:
        if start.startswith(beginning):
            return f"not an image but {what}"
    return "not an image, or of an unsupported format"


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats of :data:`_FORMATS` that this Pillow was built with."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)
