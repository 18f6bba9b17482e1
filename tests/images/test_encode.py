"""Squares as JPEG files: near the pixels, the same for any number of threads, or untouched."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexkit.images.decode import decode
from alexkit.images.encode import JpegEncoding, encode_jpeg, read_encoded
from alexkit.images.opening import open_source
from alexkit.images.preprocess import Preprocess
from tests.conftest import textured_rgb

SQUARE = Preprocess(resize=64, crop=56)


def encoded(folder: Path, *, exif: bool = False, threads: int = 2) -> list[bytes]:
    source = open_source(folder)
    preprocess = Preprocess(resize=64, crop=56, exif=exif)
    rows = np.arange(len(source))
    batches = read_encoded(
        source, rows, preprocess, JpegEncoding(), batch_size=3, threads=threads
    )
    return [file for batch in batches for file in batch.files]


def test_pillow_reads_what_was_asked_for() -> None:
    rgb = textured_rgb(0, 64, 64)
    for quality, most in ((90, 6.0), (100, 1.0)):
        data = encode_jpeg(rgb, JpegEncoding(quality))
        with Image.open(io.BytesIO(data)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (64, 64), "RGB")
            # Every component is sampled alike: 4:4:4.
            assert {layer[1:3] for layer in image.layer} == {(1, 1)}
            np.testing.assert_array_equal(np.asarray(image), decode(data, exif=False).rgb)
            assert np.abs(np.asarray(image).astype(int) - rgb).mean() < most


def test_on_photos_of_imagenet_it_is_as_near_as_documented(real_data: Path) -> None:
    source, preprocess = open_source(real_data / "imagenet-sample"), Preprocess()
    apart, size = [], []
    for row in range(0, 400, 10):
        square = preprocess.train_square(decode(source.read(row), exif=False).rgb)
        data = encode_jpeg(square, JpegEncoding())
        size.append(len(data))
        apart.append(np.abs(decode(data, exif=False).rgb.astype(int) - square).mean())
    assert np.mean(apart) == pytest.approx(2.2, abs=0.3)
    assert np.mean(size) == pytest.approx(26_000, rel=0.15)


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_nothing(tmp_path: Path, threads: int) -> None:
    for i in range(8):
        Image.fromarray(textured_rgb(i, 70 + i, 90)).save(tmp_path / f"{i}.png")
    expected = [
        encode_jpeg(SQUARE.train_square(textured_rgb(i, 70 + i, 90)), JpegEncoding())
        for i in range(8)
    ]
    assert encoded(tmp_path, threads=threads) == expected


class TestJpegsOfThatVerySize:
    def test_keep_their_bytes(self, tmp_path: Path) -> None:
        Image.fromarray(textured_rgb(0, 64, 64)).save(tmp_path / "a.jpg", quality=70)
        Image.fromarray(textured_rgb(1, 64, 64)).convert("L").save(tmp_path / "b.jpg")
        assert encoded(tmp_path) == [(tmp_path / n).read_bytes() for n in ("a.jpg", "b.jpg")]

    def test_not_where_that_would_be_another_picture(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(textured_rgb(0, 64, 64))
        image.save(tmp_path / "a.jpg", exif=exif)
        image.convert("CMYK").save(tmp_path / "b.jpg")
        whole = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "c.jpg").write_bytes(whole[:-2])  # without the end mark: repaired
        own = [path.read_bytes() for path in sorted(tmp_path.iterdir())]
        kept = [a == b for a, b in zip(encoded(tmp_path), own, strict=True)]
        assert kept == [True, False, False]
        turned = encoded(tmp_path, exif=True)
        assert turned[0] != own[0]
        upright = decode(own[0], exif=True).rgb
        assert np.abs(decode(turned[0], exif=True).rgb.astype(int) - upright).mean() < 6
