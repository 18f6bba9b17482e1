"""From decoded pixels to what a network eats: the record of how, and the exact way to do it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

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
        _require(self.interpolation in _FILTERS, "interpolation", self.interpolation)
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
        image, zero padding of images smaller than the crop included. Within one grey level
        where only the crop is computed: with ``decode`` "fast", and of an image whose resized
        form would have more than 2^24 pixels (256 times longer than wide, at 256).

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
        image = Image.fromarray(rgb)
        if height * width > _MAX_RESIZED_PIXELS or self.decode == "fast":
            return _resize_part(
                image, (width, height), (left, top), crop, resample=resample, radius=radius
            )
        if image.size != (width, height):
            image = image.resize((width, height), resample)
        # Pillow fills what lies outside the image with zeros, as torchvision's padding does.
        return np.array(image.crop((left, top, left + crop, top + crop)))

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


def _resize_part(
    image: Image.Image,
    size: tuple[int, int],
    corner: tuple[int, int],
    crop: int,
    *,
    resample: Image.Resampling,
    radius: float,
) -> Pixels:
    """The ``crop`` square at ``corner`` of ``image`` resized to ``size``, and only that."""
    cut: list[tuple[int, int]] = []
    boxes: list[tuple[float, float]] = []
    visible: list[tuple[int, int]] = []
    for source, target, start in zip(image.size, size, corner, strict=True):
        first, last = max(start, 0), min(start + crop, target)
        scale = source / target
        margin = math.ceil(radius * max(scale, 1)) + 1
        low = max(0, math.floor(first * scale) - margin)
        high = min(source, math.ceil(last * scale) + margin)
        # Pillow keeps the box in float32; measured from a near corner it stays precise.
        boxes.append((first * scale - low, min(last * scale - low, high - low)))
        cut.append((low, high))
        visible.append((first, last))
    (x0, x1), (y0, y1) = cut
    (bx0, bx1), (by0, by1) = boxes
    (vx0, vx1), (vy0, vy1) = visible
    part = image.crop((x0, y0, x1, y1)).resize(
        (vx1 - vx0, vy1 - vy0), resample, box=(bx0, by0, bx1, by1)
    )
    left, top = corner[0] - vx0, corner[1] - vy0
    return np.array(part.crop((left, top, left + crop, top + crop)))


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
