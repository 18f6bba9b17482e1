"""Evaluation pixels against torchvision's own transforms; the record against its JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torchvision.transforms as tv
from PIL import Image

from alexkit.errors import DamagedFile
from alexkit.images.preprocess import Preprocess

PRESET = Preprocess()
CAFFE = Preprocess(
    mode="squash",
    crop=227,
    mean=(104.0, 117.0, 123.0),
    std=(1.0, 1.0, 1.0),
    scale=1.0,
    channels="BGR",
)


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def torchvision_square(
    rgb: npt.NDArray[np.uint8], how: Preprocess, crop: int
) -> npt.NDArray[np.uint8]:
    size = how.resize if how.mode == "short" else (how.resize, how.resize)
    resize = tv.Resize(size, interpolation=tv.InterpolationMode(how.interpolation))
    return np.asarray(tv.CenterCrop(crop)(resize(Image.fromarray(rgb))))


SIZES = [
    *[(1, 1), (1, 40), (40, 1), (2, 3), (37, 600), (100, 100), (223, 224), (224, 225)],
    *[(255, 300), (256, 256), (257, 256), (256, 341), (333, 500), (500, 375), (801, 603)],
    # Kept from a crop that is computed alone, by what its edges are in fractions of a pixel.
    *[(375, 500), (384, 512), (300, 320), (768, 1000), (512, 1024), (257, 1001), (400, 1200)],
    # On both sides of where Pillow makes columns shorter first.
    *[(700, 400), (767, 400), (768, 400), (769, 400), (1000, 257), (900, 40), (258, 100)],
]
SETTINGS = [
    PRESET,
    replace(PRESET, interpolation="bicubic"),
    replace(PRESET, resize=200),  # smaller than the crop: torchvision pads with zeros
    replace(PRESET, resize=99, crop=224),
    CAFFE,
    replace(CAFFE, resize=199, crop=224),
]


@pytest.mark.parametrize("how", SETTINGS)
def test_square_equals_torchvision_to_the_bit(how: Preprocess) -> None:
    for height, width in SIZES:
        rgb = noise(height, width)
        expected = torchvision_square(rgb, how, how.crop)
        got = how.square(rgb)
        np.testing.assert_array_equal(got, expected, str((height, width)))
        assert got.flags.writeable  # torch.from_numpy warns otherwise


def test_train_square_is_the_centre_of_the_resized_image() -> None:
    for height, width in SIZES:
        rgb = noise(height, width)
        expected = torchvision_square(rgb, PRESET, 256)
        np.testing.assert_array_equal(PRESET.train_square(rgb), expected)


def test_square_equals_torchvision_on_real_photos(real_data: Path) -> None:
    files = sorted((real_data / "imagenet-sample").iterdir())
    assert len(files) == 400
    for file in files:
        with Image.open(file) as image:
            rgb = np.asarray(image.convert("RGB"))
        expected = torchvision_square(rgb, PRESET, 224)
        np.testing.assert_array_equal(PRESET.square(rgb), expected, file.name)


@pytest.mark.parametrize("how", SETTINGS)
def test_only_the_crop_is_within_one_grey_level(how: Preprocess) -> None:
    fast = replace(how, decode="fast")
    for size in ((375, 500), (500, 333), (257, 1000), (40, 30), (224, 224)):
        rgb = noise(*size)
        for one, other in ((fast.square, how.square), (fast.train_square, how.train_square)):
            apart = np.abs(one(rgb).astype(int) - other(rgb))
            assert apart.max() <= 1


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (3, 900), (900, 3)])
@pytest.mark.parametrize("how", [PRESET, SETTINGS[1], SETTINGS[2]])
def test_extreme_shapes_are_within_one_grey_level(
    size: tuple[int, int], how: Preprocess
) -> None:
    rgb = noise(*size)
    expected = torchvision_square(rgb, how, how.crop).astype(int)
    assert np.abs(how.square(rgb) - expected).max() <= 1


def test_a_line_of_a_million_pixels_costs_no_memory() -> None:
    # Resized as a whole it would have 256 x 256 million pixels.
    line = np.full((1, 1_000_000, 3), 77, np.uint8)
    assert (PRESET.square(line) == 77).all()
    assert (PRESET.square(line.transpose(1, 0, 2).copy()) == 77).all()


def test_normalise_equals_to_tensor_and_normalize() -> None:
    pixels = torch.from_numpy(np.stack([noise(31, 47, seed) for seed in range(3)]))
    before = pixels.clone()
    steps = tv.Compose([tv.ToTensor(), tv.Normalize(PRESET.mean, PRESET.std)])
    expected = torch.stack([steps(image.numpy()) for image in pixels])
    got = PRESET.normalise(pixels)
    assert got.dtype == torch.float32
    assert (got - expected).abs().max() <= 1e-6
    assert torch.equal(pixels, before)


def test_normalise_puts_blue_first_where_the_record_says_so() -> None:
    pixels = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(2, 5, 4, 3)
    got = CAFFE.normalise(pixels)
    assert got.shape == (2, 3, 5, 4)
    assert got[1, :, 4, 3].tolist() == [30 - 104, 20 - 117, 10 - 123]


def test_normalise_takes_an_empty_batch() -> None:
    empty = torch.empty((0, 8, 8, 3), dtype=torch.uint8)
    assert PRESET.normalise(empty).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("how", [PRESET, CAFFE, replace(PRESET, exif=True, scale=0.1)])
def test_record_survives_json(how: Preprocess) -> None:
    text = json.dumps(how.to_record())
    assert Preprocess.from_record(json.loads(text)) == how


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("resize", 0), ("resize", "256"), ("resize", 10**9), ("crop", 224.0)],
        *[("mode", "long"), ("interpolation", "nearest"), ("antialias", False)],
        *[("mean", [0.5, 0.5]), ("mean", 0.5), ("std", [1, 0, 1]), ("std", [1, None, 1])],
        *[("scale", 0), ("scale", float("nan")), ("channels", "GRB"), ("exif", "no")],
        ("interpolation", ["bilinear"]),
    ],
)
def test_a_damaged_record_is_named(field: str, value: object) -> None:
    record = PRESET.to_record() | {field: value}
    with pytest.raises(DamagedFile, match=field):
        Preprocess.from_record(record)


def test_a_record_with_other_fields_is_named() -> None:
    record = PRESET.to_record() | {"gamma": 1}
    del record["crop"]
    with pytest.raises(DamagedFile, match="crop, gamma"):
        Preprocess.from_record(record)
