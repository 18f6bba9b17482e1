"""From decoded pixels to what a network eats: the record of how, and the exact way to do it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from alexkit.errors import DamagedFile

Pixels = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""R, G, B on a 0 to 1 scale: ``torchvision/transforms/_presets.py``, ImageClassification."""

_FILTERS = {
    "bilinear": (Image.Resampling.BILINEAR, 1.0),
    "bicubic": (Image.Resampling.BICUBIC, 2.0),
}
"""Pillow's filter and its radius in source pixels at scale 1 (Pillow ``Resample.c``)."""

_MAX_RESIZED_PIXELS = 1 << 24
"""Above this the whole resized image is not built, only the crop (see :meth:`square`)."""


@dataclass(frozen=True)
class Preprocess:
    """How an image becomes a network's input; travels with weights and features.

    The defaults are torchvision's preset for its AlexNet weights
    (``AlexNet_Weights.IMAGENET1K_V1.transforms()``).

    Attributes:
        resize: pixels; the short side is brought to it ("short", the paper's §2), or both
            sides are ("squash", Caffe's ``convert -resize 256x256!``).
        mode: ``"short"`` or ``"squash"``.
        interpolation: ``"bilinear"`` or ``"bicubic"``.
        antialias: always True. Pillow's resize, which this is, widens the filter when it
            shrinks; recorded because tensor resizes elsewhere often do not.
        crop: pixels; side of the centre square the network reads.
        mean: subtracted after scaling, in the order of ``channels``.
        std: divided by last, in the order of ``channels``.
        scale: multiplies the 0 to 255 values first: 1/255 (torchvision) or 1 (Caffe).
        channels: ``"RGB"``, or ``"BGR"`` (Caffe): the order the network expects.
        exif: whether the camera's orientation tag was obeyed. Training on ImageNet never
            did, so weights from there expect False.
        decode: ``"exact"``, or ``"fast"``: large JPEGs are decoded at a fraction of their
            size, at least twice ``resize``, and resized from there (see :attr:`at_least`);
            and of every image only the part that is kept is resized, in 0.6 of the time, its
            values within one grey level.
    """

    resize: int = 256
    mode: str = "short"
    interpolation: str = "bilinear"
    antialias: bool = True
    crop: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    scale: float = 1 / 255
    channels: str = "RGB"
    exif: bool = False
    decode: str = "exact"

    def __post_init__(self) -> None:
        """Raises ValueError naming the field that makes no sense."""
        _require(_is_size(self.resize), "resize", self.resize)
        _require(_is_size(self.crop), "crop", self.crop)
        _require(self.mode in ("short", "squash"), "mode", self.mode)
        _require(self.interpolation in tuple(_FILTERS), "interpolation", self.interpolation)
        _require(self.antialias is True, "antialias", self.antialias)
        _require(_are_three_numbers(self.mean), "mean", self.mean)
        _require(_are_three_numbers(self.std) and all(self.std), "std", self.std)
        _require(_is_number(self.scale) and self.scale > 0, "scale", self.scale)
        _require(self.channels in ("RGB", "BGR"), "channels", self.channels)
        _require(isinstance(self.exif, bool), "exif", self.exif)
        _require(self.decode in ("exact", "fast"), "decode", self.decode)

    def to_record(self) -> dict[str, Any]:
        """JSON-safe values; :meth:`from_record` gives back an equal object."""
        record = asdict(self)
        record["mean"], record["std"] = list(self.mean), list(self.std)
        return record

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Preprocess:
        """The opposite of :meth:`to_record`.

        Raises:
            DamagedFile: a field is missing, unknown or makes no sense.
        """
        hint = "the file was edited, or written by another version of alexkit"
        known = {field.name for field in fields(cls)}
        odd = sorted(known.symmetric_difference(record))
        if odd:
            raise DamagedFile(
                f"the preprocessing record has missing or unknown fields: {', '.join(odd)}",
                hint=hint,
            )
        values = dict(record)
        for name in ("mean", "std"):
            if isinstance(values[name], list):
                values[name] = tuple(values[name])
        try:
            return cls(**values)
        except ValueError as error:
            raise DamagedFile(
                f"the preprocessing record is wrong: {error}", hint=hint
            ) from error

    @property
    def at_least(self) -> int:
        """Pixels the short side keeps when a JPEG is decoded at a fraction of its size; 0:
        never. Twice what the resize needs: measured on photos of 2 to 5 megapixels, pool5
        then moves by 2 %, and by 3 to 10 % with just as many."""
        return 2 * self.resize if self.decode == "fast" else 0

    def square(self, rgb: Pixels) -> Pixels:
        """Resize and centre crop, the exact evaluation path.

        Equal to the bit to torchvision's ``Resize(resize)`` + ``CenterCrop(crop)`` on a PIL
        image, zero padding of images smaller than the crop included. What lies outside the
        crop is not computed as far as that changes no bit, which saves a fifth of the time.
        Within one grey level where only the crop is computed: with ``decode`` "fast", and of
        an image whose resized form would have more than 2^24 pixels (256 times longer than
        wide, at 256).

        Args:
            rgb: (H, W, 3) uint8, H and W at least 1.

        Returns:
            (crop, crop, 3) uint8, writable.
        """
        return self._resize_and_crop(rgb, self.crop)

    def train_square(self, rgb: Pixels) -> Pixels:
        """The square that random crops are cut from (paper §2): resize, then the centre.

        Args:
            rgb: (H, W, 3) uint8, H and W at least 1.

        Returns:
            (resize, resize, 3) uint8.
        """
        return self._resize_and_crop(rgb, self.resize)

    def normalise(self, pixels_nhwc: torch.Tensor) -> torch.Tensor:
        """Scale, subtract the mean, divide by the std; on the device the pixels are on.

        Args:
            pixels_nhwc: (N, H, W, 3) uint8, RGB.

        Returns:
            (N, 3, H, W) float32 in the order of ``channels``, in channels_last memory.
        """
        assert pixels_nhwc.dtype == torch.uint8, pixels_nhwc.dtype
        n, height, width, _ = pixels_nhwc.shape
        if self.channels == "BGR":
            pixels_nhwc = pixels_nhwc.flip(-1)
        # Whole rows, as arithmetic along the 3 channels alone is twice as slow.
        scale = np.array([self.scale / s for s in self.std] * width, np.float32)
        ratios = [m / s for m, s in zip(self.mean, self.std, strict=True)]
        shift = np.array(ratios * width, np.float32)
        rows = pixels_nhwc.reshape(n, height, width * 3)
        if rows.device.type == "cpu":
            x_nhwc = torch.from_numpy(_scaled(rows.numpy(), scale, shift))
        else:
            x_nhwc = rows.to(torch.float32).mul_(torch.from_numpy(scale).to(rows.device))
            x_nhwc.sub_(torch.from_numpy(shift).to(rows.device))
        return x_nhwc.view(n, height, width, 3).permute(0, 3, 1, 2)

    def _resize_and_crop(self, rgb: Pixels, crop: int) -> Pixels:
        height, width = self._resized(*rgb.shape[:2])
        resample, radius = _FILTERS[self.interpolation]
        top, left = _centre(height, crop), _centre(width, crop)
        if rgb.shape[:2] == (height, width) and crop <= min(height, width):
            return rgb[top : top + crop, left : left + crop].copy()
        exact = self.decode == "exact" and height * width <= _MAX_RESIZED_PIXELS
        if exact and not _rows_first(rgb, height, width):
            whole = Image.fromarray(rgb).resize((width, height), resample)
            return np.array(whole.crop((left, top, left + crop, top + crop)))
        span = partial(_span, crop=crop, radius=radius, exact=exact)
        rows, columns = span(rgb.shape[0], height, top), span(rgb.shape[1], width, left)
        return _resize_part(rgb, rows, columns, crop, resample)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after the resize, rounded down as torchvision does."""
        if self.mode == "squash":
            return self.resize, self.resize
        if width <= height:
            return int(self.resize * height / width), self.resize
        return self.resize, int(self.resize * width / height)


def _scaled(
    rows: Pixels, scale: npt.NDArray[np.float32], shift: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(N, H, W * 3) uint8 times ``scale`` minus ``shift``, (W * 3) each, in float32.

    One image at a time, which stays in the processor's cache from step to step. NumPy, as it
    asks the system for large pages, and as torch's threads would spin beside the decoders'.
    """
    out = np.empty(rows.shape, np.float32)
    for image, pixels in zip(out, rows, strict=True):
        np.copyto(image, pixels)
        image *= scale
        image -= shift
    return out


def _centre(size: int, crop: int) -> int:
    """Where a centre crop begins: torchvision's rounding, negative when it must pad."""
    if crop > size:
        return -((crop - size) // 2)
    return round((size - crop) / 2)


def _rows_first(rgb: Pixels, height: int, width: int) -> bool:
    """Whether Pillow makes each row shorter before it makes each column so; what lies between
    is rounded to whole grey levels. From version 13 on it does not where the height shrinks
    much more than the width (its pull request 9549)."""
    return bool(rgb.shape[0] - height <= max(0, 2 * (rgb.shape[1] - width)))


class _Span(NamedTuple):
    """What of one axis is resized, in pixels.

    Attributes:
        low, high: the source's pixels that are looked at.
        begin, end: where among them what is computed lies.
        size: how many pixels are computed.
        start: where the crop begins among those; negative where it must pad.
    """

    low: int
    high: int
    begin: float
    end: float
    size: int
    start: int


def _span(
    source: int, target: int, start: int, crop: int, *, radius: float, exact: bool
) -> _Span:
    """What of an axis resized from ``source`` to ``target`` a crop at ``start`` needs.

    Pillow has the edges of the part to compute as float32. ``exact`` moves them outwards to
    where these hold them without rounding, as far as the image's ends if need be: filter
    weights, and so the pixels, are then those of the whole image's resize. Edges along the
    short side, 256 pixels, are multiples of 1/256 and need not move.
    """
    first, last = max(start, 0), min(start + crop, target)
    if source == target:
        return _Span(first, last, 0, last - first, last - first, start - first)
    if exact:
        step = _odd_part(target // math.gcd(source, target))
        first, last = first - first % step, min(last + -last % step, target)
    begin, end = first * source / target, last * source / target
    margin = math.ceil(radius * max(source / target, 1)) + 1
    low = max(0, math.floor(begin) - margin)
    high = min(source, math.ceil(end) + margin)
    # Measured from a near corner they are small, and float32 precise.
    begin, end = begin - low, end - low
    if exact and not (begin == np.float32(begin) and end == np.float32(end)):
        return _Span(0, source, 0, source, target, start)
    return _Span(low, high, begin, end, last - first, start - first)


def _odd_part(number: int) -> int:
    return number // (number & -number)


def _resize_part(
    rgb: Pixels, rows: _Span, columns: _Span, crop: int, resample: Image.Resampling
) -> Pixels:
    """The ``crop`` square of ``rgb`` resized, without most of what lies outside it.

    Rows first, as Pillow does it; the columns outside the square have gone by the second step.
    """
    image = _image_of(rgb, rows, columns)
    across = (columns.begin, 0, columns.end, image.height)
    image = image.resize((columns.size, image.height), resample, box=across)
    # Pillow fills what lies outside the image with zeros, as torchvision's padding does.
    if columns.size != crop:
        left = columns.start
        image = image.crop((left, 0, left + crop, image.height))
    down = (0, rows.begin, crop, rows.end)
    image = image.resize((crop, rows.size), resample, box=down)
    if rows.size != crop:
        image = image.crop((0, rows.start, crop, rows.start + crop))
    return np.array(image)


def _image_of(rgb: Pixels, rows: _Span, columns: _Span) -> Image.Image:
    """A part of ``rgb`` as Pillow holds it, copied once: ``fromarray`` copies a part twice."""
    width = rgb.shape[1]
    begin = rows.low * width + columns.low
    end = (rows.high - 1) * width + columns.high
    image = Image.new("RGB", (columns.high - columns.low, rows.high - rows.low), None)
    image.frombytes(rgb.reshape(-1)[3 * begin : 3 * end], "raw", "RGB", 3 * width, 1)
    return image


def _require(holds: bool, name: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} = {value!r}")


def _is_number(value: object) -> bool:
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    )


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 4096


def _are_three_numbers(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(map(_is_number, value))
