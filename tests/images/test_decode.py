"""Pixels equal to Pillow's where the file is ordinary; a remark or a reason where it is not."""

from __future__ import annotations

import io
import logging
import resource
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from alexkit.errors import UnreadableImage
from alexkit.images.decode import Decoded, decode
from alexkit.images.limits import MAX_PIXELS
from alexkit.images.preprocess import Preprocess
from tests.conftest import Capsys, textured_rgb

Array = npt.NDArray[np.uint8]


def photo(height: int = 61, width: int = 83, seed: int = 0) -> Array:
    return textured_rgb(seed, height, width)


def encoded(image: Image.Image | Array, kind: str, **options: Any) -> bytes:
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow(data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def decoded(data: bytes, exif: bool = False) -> Decoded:
    got = decode(data, exif=exif)
    assert got.rgb.dtype == np.uint8
    assert got.rgb.ndim == 3
    assert got.rgb.shape[2] == 3
    assert got.rgb.flags.c_contiguous
    return got


def reason(data: bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(data, exif=True)
    assert caught.value.exit_status == 3
    assert caught.value.hint
    return caught.value.message


# --- ordinary images


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"subsampling": 0},
        {"subsampling": 1},
        {"quality": 30, "subsampling": 2},
        {"progressive": True},
        {"optimize": True, "restart_marker_rows": 1},
        {"keep_rgb": True},
    ],
)
@pytest.mark.parametrize("size", [(61, 83), (1, 1), (16, 16), (7, 200)])
def test_jpeg_equals_pillow_to_the_bit(options: dict[str, Any], size: tuple[int, int]) -> None:
    data = encoded(photo(*size), "JPEG", **options)
    got = decoded(data)
    np.testing.assert_array_equal(got.rgb, pillow(data))
    assert got.remark == ""


def test_every_imagenet_photo_equals_pillow_to_the_bit(real_data: Path) -> None:
    files = sorted((real_data / "imagenet-sample").iterdir())
    assert len(files) == 400
    for file in files:
        data = file.read_bytes()
        got = decoded(data)
        np.testing.assert_array_equal(got.rgb, pillow(data), file.name)
        assert got.remark == ""


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "GIF", "ICO", "JPEG2000"])
def test_lossless_formats_give_back_the_pixels(kind: str) -> None:
    image = Image.fromarray(photo(32, 32)).quantize(64).convert("RGB")
    options = {"sizes": [(32, 32)]} if kind == "ICO" else {}
    got = decoded(encoded(image, kind, **options))
    np.testing.assert_array_equal(got.rgb, np.asarray(image))
    assert got.remark == ""


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_grey_and_palette_are_ordinary(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    got = decoded(encoded(image, "PNG"))
    np.testing.assert_array_equal(got.rgb, np.asarray(image.convert("RGB")))
    assert got.remark == ""
    grey = decoded(encoded(Image.fromarray(photo()).convert("L"), "JPEG"))
    assert (grey.rgb == grey.rgb[..., :1]).all()


# --- odd images


def test_alpha_is_laid_on_white() -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0] = [(10, 20, 30, 255), (10, 20, 30, 0), (0, 100, 255, 128)]
    got = decoded(encoded(rgba, "PNG"))
    assert got.rgb.tolist() == [[[10, 20, 30], [255, 255, 255], [127, 177, 255]]]
    assert got.remark == "alpha on white"
    rgba[..., 3] = 255
    assert decoded(encoded(rgba, "PNG")).remark == ""


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_mixed_as_pillow_does(mode: str) -> None:
    rgba = np.dstack([photo(), np.tile(np.arange(83, dtype=np.uint8) * 3, (61, 1))])
    image = Image.fromarray(rgba).convert(mode)
    got = decoded(encoded(image, "PNG"))
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    assert np.abs(got.rgb.astype(int) - expected).max() <= 1
    assert got.remark == "alpha on white"


@pytest.mark.parametrize(
    ("image", "clear"),
    [
        (Image.fromarray(np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)), (1, 2, 3)),
        (Image.fromarray(np.array([[0, 9]], np.uint8)), 0),
        (Image.fromarray(np.array([[0, 9 << 8]], np.uint16)), 0),
        (Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P"), 0),
    ],
)
def test_a_transparent_colour_becomes_white(image: Image.Image, clear: Any) -> None:
    got = decoded(encoded(image, "PNG", transparency=clear))
    assert got.rgb[0, 0].tolist() == [255, 255, 255]
    assert got.rgb[0, 1].tolist() != [255, 255, 255]
    assert "alpha on white" in got.remark


def test_large_images_are_converted_strip_by_strip() -> None:
    # 6.25 million pixels: two strips.
    rgba = np.tile(np.dstack([photo(25, 25), photo(25, 25, 1)[..., :1]]), (100, 100, 1))
    whole = decoded(encoded(rgba, "BMP")).rgb
    one = decoded(encoded(rgba[:25, :25].copy(), "BMP")).rgb
    np.testing.assert_array_equal(whole, np.tile(one, (100, 100, 1)))


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_16_bit_grey_keeps_its_high_byte(order: str) -> None:
    values = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    image = Image.frombytes(
        "I;16" if order == "<u2" else "I;16B", (5, 1), values.astype(order).tobytes()
    )
    got = decoded(encoded(image, "TIFF"))
    assert got.rgb[0, :, 0].tolist() == [0, 0, 1, 128, 255]
    assert (got.rgb == got.rgb[..., :1]).all()
    assert got.remark == "16-bit scaled (values 0 to 65535)"
    png = decoded(encoded(Image.fromarray(values), "PNG"))
    np.testing.assert_array_equal(png.rgb, got.rgb)


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.array([[0.0, 1.0]], np.float32), r"floating-point pixels \(0.0 to 1.0\)"),
        (np.array([[0, 70000]], np.int32), r"32-bit pixels \(0 to 70000\)"),
        (np.array([[-1, 5]], np.int32), r"32-bit pixels \(-1 to 5\)"),
    ],
)
def test_pixels_without_a_known_white_are_refused(pixels: Any, what: str) -> None:
    with pytest.raises(UnreadableImage, match=what):
        decode(encoded(Image.fromarray(pixels), "TIFF"), exif=False)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted_as_pillow_does(kind: str) -> None:
    data = encoded(Image.fromarray(photo()).convert("CMYK"), kind)
    got = decoded(data)
    np.testing.assert_array_equal(got.rgb, pillow(data))
    assert got.remark == "CMYK converted"


def test_lab_is_converted() -> None:
    white = Image.frombytes("LAB", (1, 1), bytes([255, 0, 0]))
    got = decoded(encoded(white, "TIFF"))
    assert got.rgb.min() >= 254
    assert got.remark == "Lab converted"


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_of_several_frames(kind: str) -> None:
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "lime", "blue")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    got = decoded(data)
    assert (got.rgb == [255, 0, 0]).all()
    assert got.remark == "first of 3 frames"


# --- orientation


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_as_pillow_does(kind: str, orientation: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = orientation
    data = encoded(photo(), kind, exif=tags)
    turned = decoded(data, exif=True)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    np.testing.assert_array_equal(turned.rgb, expected)
    if kind != "TIFF":  # always obeyed there, and so not worth a remark
        words = f"EXIF orientation {orientation} applied"
        assert turned.remark == (words if orientation > 1 else "")
        np.testing.assert_array_equal(decoded(data).rgb, pillow(data))
        assert decoded(data).rgb.shape == (61, 83, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_nonsense_orientation_is_ignored(value: int) -> None:
    tags = Image.Exif()
    tags[0x0112] = value
    data = encoded(photo(), "JPEG", exif=tags)
    np.testing.assert_array_equal(decoded(data, exif=True).rgb, pillow(data))


# --- damaged images


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 2}])
def test_a_cut_jpeg_is_whole_or_unreadable_never_in_between(options: dict[str, Any]) -> None:
    data = encoded(photo(160, 160), "JPEG", **options)
    whole = decoded(data).rgb
    outcomes = set()
    for length in [*range(0, len(data), 97), *range(len(data) - 40, len(data))]:
        try:
            got = decode(data[:length], exif=True)
        except UnreadableImage:
            outcomes.add("unreadable")
        else:
            np.testing.assert_array_equal(got.rgb, whole)
            assert "all pixels present" in got.remark
            outcomes.add("whole")
    # Only the end marker gone is told from pixels gone, where one scan has them all.
    assert outcomes == ({"unreadable"} if "progressive" in options else {"unreadable", "whole"})


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG2000"])
def test_other_cut_files_are_unreadable(kind: str) -> None:
    data = encoded(photo(), kind)
    for part in (0.1, 0.5, 0.9):
        assert reason(data[: int(len(data) * part)])


def test_a_large_jpeg_is_decoded_smaller_only_when_asked() -> None:
    """Smooth pixels, which a fraction of the frequencies holds."""
    rows, columns = np.mgrid[:640, :800]
    rgb = np.stack([rows / 3, columns / 4, (rows + columns) / 6], -1).astype(np.uint8)
    data = encoded(rgb, "JPEG", quality=95)
    whole = decode(data, exif=False).rgb
    assert whole.shape == (640, 800, 3)
    for at_least, height in ((80, 80), (100, 160), (161, 240), (320, 320), (321, 640)):
        smaller = decode(data, exif=False, at_least=at_least).rgb
        assert smaller.shape == (height, height * 5 // 4, 3)
    how = Preprocess(resize=64, crop=56)
    fast = replace(how, decode="fast")
    assert (how.at_least, fast.at_least) == (0, 128)
    near = fast.square(decode(data, exif=False, at_least=fast.at_least).rgb).astype(int)
    assert np.abs(near - how.square(whole)).max() <= 1


def test_a_large_file_that_is_cut_is_refused_at_any_size() -> None:
    data = encoded(photo(400, 400), "JPEG")
    with pytest.raises(UnreadableImage):
        decode(data[: len(data) * 3 // 4], exif=False, at_least=100)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_damaged_picture_data_is_refused_though_pillow_would_not_say(mode: str) -> None:
    image = Image.fromarray(photo(160, 160)).convert(mode)
    whole = encoded(image, "JPEG", restart_marker_rows=1)
    marker = whole.index(b"\xff\xd3", whole.index(b"\xff\xda"))
    data = whole[: marker - 20] + whole[marker:]
    assert not np.array_equal(pillow(data), pillow(whole))  # decodes, wrongly
    assert reason(data).startswith("damaged or truncated: Corrupt JPEG data")


def test_damaged_metadata_does_not_cost_the_image() -> None:
    data = encoded(photo(), "JPEG")
    whole = decoded(data).rgb
    broken_profile = b"\xff\xe2" + struct.pack(">H", 17) + b"ICC_PROFILE\0\x05\x01x"
    junk = b"\x00\x01\x02\x03junk"
    first = data[:20]  # start marker and JFIF segment
    for extra in (broken_profile, junk):
        got = decoded(first + extra + data[20:])
        np.testing.assert_array_equal(got.rgb, whole)
        assert got.remark.startswith("all pixels present, though the decoder said: ")
    left_over = decoded(data[:-2] + bytes(64) + data[-2:])
    np.testing.assert_array_equal(left_over.rgb, whole)
    assert "extraneous bytes before marker 0xd9" in left_over.remark


def test_the_colour_transform_outlives_damaged_metadata() -> None:
    broken_profile = b"\xff\xe2" + struct.pack(">H", 17) + b"ICC_PROFILE\0\x05\x01x"
    cmyk = encoded(Image.fromarray(photo()).convert("CMYK"), "JPEG")
    ycck = cmyk[:17] + b"\2" + cmyk[18:]  # the transform byte of the Adobe segment
    for data in (encoded(photo(), "JPEG", keep_rgb=True), cmyk, ycck):
        got = decoded(data[:2] + broken_profile + data[2:])
        np.testing.assert_array_equal(got.rgb, decoded(data).rgb)
        assert "bad ICC marker" in got.remark


def test_bytes_after_the_end_are_nobodys_business() -> None:
    data = encoded(photo(), "JPEG")
    got = decoded(data + b"trailing words")
    np.testing.assert_array_equal(got.rgb, decoded(data).rgb)
    assert got.remark == ""


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"
"""Pillow would hand this to Ghostscript."""


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the file is empty"),
        (bytes(5000), "only zero bytes"),
        (b"\n <!DOCTYPE html><html>", "an HTML page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><svg>", "an XML or SVG file"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"%PDF-1.7", "a PDF"),
        (b"PK\x03\x04", "a zip archive"),
        (EPS, "not an image, or of an unsupported format"),
        (b"these are words", "not an image, or of an unsupported format"),
        (b"\xff\xd8\xff", "not an image, or of an unsupported format"),
    ],
)
def test_what_is_no_image_is_named(data: bytes, words: str) -> None:
    assert words in reason(data)


# --- bombs


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100)))


def test_bombs_are_refused_before_memory_is_taken() -> None:
    jpeg = bytearray(encoded(photo(), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(bytes(jpeg)) == "65000 x 65000 pixels is over the limit of 134 million"
    side = int(MAX_PIXELS**0.5) + 1
    assert "over the limit" in reason(png_header(side, side))
    assert "more pixels than any photo" in reason(png_header(2**30, 2**30))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 50_000  # kB


def test_scans_without_end_are_refused() -> None:
    """23 bytes each, and each a pass over all pixels."""
    data = encoded(np.full((2000, 2000), 128, np.uint8), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert reason(data[:-2] + last * 2000 + data[-2:]) == ("a JPEG of more than 100 scans")
    # What follows the end of the picture is nobody's business.
    assert decoded(data + last * 2000).rgb.shape == (2000, 2000, 3)


def test_a_large_photo_passes() -> None:
    # 30 megapixels, one colour: small as a file.
    data = encoded(Image.new("RGB", (6000, 5000), (9, 8, 7)), "JPEG", quality=95)
    assert decoded(data).rgb.shape == (5000, 6000, 3)


# --- silence


def noisy_tiff() -> bytes:
    """Damaged tags make Pillow warn, and libtiff print past Python."""
    image = Image.fromarray(photo())
    data = bytearray(encoded(image, "TIFF", compression="tiff_lzw", tiffinfo={65000: "x" * 40}))
    at = data.index(struct.pack("<H", 65000))
    data[at + 4 : at + 8] = struct.pack("<I", 2**28)  # tag longer than the file
    return bytes(data)


def test_nothing_is_printed_or_warned(capfd: Capsys) -> None:
    filters = list(warnings.filters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning), Image.open(io.BytesIO(noisy_tiff())) as image:
            image.load()
        capfd.readouterr()
        decoded(noisy_tiff())
    assert list(warnings.filters) == filters
    assert capfd.readouterr() == ("", "")


def test_threads_do_not_upset_the_warning_filters() -> None:
    filters = list(warnings.filters)
    data = [noisy_tiff(), encoded(photo(), "PNG")] * 100
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda one: decode(one, exif=True), data))
    assert list(warnings.filters) == filters


# --- any damage


def small_files() -> list[bytes]:
    """One of each format and kind of compression, a few kilobytes each."""
    image = Image.fromarray(photo(40, 56))
    tagged = Image.Exif()
    tagged[0x0112] = 6
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (image, "JPEG", {"exif": tagged}),
        (image, "JPEG", {"progressive": True}),
        (image.convert("L"), "JPEG", {"restart_marker_blocks": 3}),
        (image.convert("CMYK"), "JPEG", {}),
        (image, "MPO", {"save_all": True, "append_images": [image]}),
        (image, "PNG", {"exif": tagged}),
        (image.convert("RGBA"), "PNG", {}),
        (image.convert("P"), "PNG", {}),
        (image.convert("P"), "GIF", {"save_all": True, "append_images": [image]}),
        (image, "WEBP", {"exif": tagged}),
        (image.convert("RGBA"), "WEBP", {"lossless": True}),
        (image, "TIFF", {}),
        (image, "TIFF", {"compression": "jpeg"}),
        (image, "TIFF", {"compression": "tiff_lzw"}),
        (image.convert("1"), "TIFF", {"compression": "group4"}),
        (image, "BMP", {}),
        (image.convert("P"), "BMP", {}),
        (image, "PPM", {}),
        (image, "PCX", {}),
        (image, "ICO", {}),
    ]
    return [encoded(one, kind, **options) for one, kind, options in kinds]


SMALL_FILES = small_files()
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["cut", "set", "zero", "insert", "remove", "repeat"]),
        st.floats(0, 1),  # where; headers come first and matter most, so it is squared
        st.sampled_from([b"\0", b"\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0"])
        | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def edited(data: bytes, how: str, where: float, value: bytes) -> bytes:
    at = int(where**2 * len(data))
    head, tail, n = data[:at], data[at:], len(value)
    return {
        "cut": head,
        "set": head + value + tail[n:],
        "zero": head + bytes(min(len(tail), 64 * n)) + tail[64 * n :],
        "insert": head + value + tail,
        "remove": head + tail[16 * n :],
        "repeat": head + tail[: 100 * n] + tail,
    }[how]


@settings(max_examples=400, deadline=60_000, derandomize=True, database=None)
@given(st.sampled_from(range(len(SMALL_FILES))), EDITS, st.booleans(), st.sampled_from([0, 8]))
def test_no_damage_is_a_crash_a_wait_or_a_wrong_shape(
    which: int, edits: list[tuple[str, float, bytes]], exif: bool, at_least: int
) -> None:
    data = SMALL_FILES[which]
    for edit in edits:
        data = edited(data, *edit)
    try:
        rgb = decode(data, exif=exif, at_least=at_least).rgb
        said = ""
    except UnreadableImage as error:
        rgb, said = np.zeros((1, 1, 3), np.uint8), error.message
    assert said.isprintable()
    assert len(said) < 400
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    height, width, channels = rgb.shape
    assert 0 < height * width <= MAX_PIXELS
    assert channels == 3


# --- the real collection of odd files

TORTURE = {
    "exif-orientation__Landscape_8.jpg": "EXIF orientation 8 applied",
    "pil__1_trns.png": "alpha on white",
    "pil__16bit.MM.deflate.tif": "16-bit scaled (values 291 to 694)",
    "pil__compression.tif": "first of 2 frames",
    "pil__decompression_bomb_extents.gif": "first of 2 frames",
    "pil__dispose_bgnd_transparency.gif": "alpha on white, first of 10 frames",
    "pil__hopper.Lab.tif": "Lab converted",
    "pil__hopper_orientation_6.jpg": "EXIF orientation 6 applied",
    "pil__icc-after-SOF.jpg": "all pixels present, though the decoder said: "
    "Corrupt JPEG data: bad ICC marker",
    "pil__iss634.webp": "first of 42 frames",
    "pil__mmap_error.bmp": "",
    "pil__pil_sample_cmyk.jpg": "CMYK converted",
    "pil__sugarshack.mpo": "",
    "pil__xmp_tags_orientation.png": "EXIF orientation 3 applied",
    "pil__10ct_32bit_128.tiff": "! floating-point pixels",
    "pil__bmp__b__reallybig.bmp": "! its header asks for more pixels",
    "pil__bmp__q__rgba16-4444.bmp": "! damaged, or of an unsupported kind",
    "pil__broken_data_stream.png": "! damaged, or of an unsupported kind",
    "pil__decompression_bomb.gif": "! its header asks for more pixels",
    # Pillow decodes this one into stripes without a word.
    "pil__hopper_bad_exif.jpg": "! damaged or truncated: Corrupt JPEG data",
    "pil__l2rgb_read.bmp": "! 3158064 x 48 pixels is over the limit",
    "pil__libtiff_segfault.tif": "! not an image",
    "pil__png_decompression_dos.png": "! damaged, or of an unsupported kind",
    "pil__truncated_image.png": "! damaged, or of an unsupported kind",
    "pil__truncated_jpeg.jpg": "! damaged or truncated: Premature end",
    "pil__zero_width.gif": "! not an image",
}
"""What becomes of one file of each kind; "!" begins a reason."""


def test_torture(real_data: Path, capfd: Capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    # As in a program that has set up no logging: Python then prints what is logged.
    monkeypatch.setattr(logging.root, "handlers", [])
    files = sorted(
        file for file in (real_data / "torture").iterdir() if file.name != "index.json"
    )
    assert len(files) == 115
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {}
    for file in files:
        try:
            outcomes[file.name] = decoded(file.read_bytes(), exif=True).remark
        except UnreadableImage as error:
            outcomes[file.name] = f"! {error.message}"
    for name, expected in TORTURE.items():
        exact = outcomes[name] == expected
        assert exact or (expected[:1] == "!" and outcomes[name].startswith(expected)), name
    readable = [name for name, outcome in outcomes.items() if not outcome.startswith("!")]
    assert len(readable) >= 80  # 88 with Pillow 13; older ones know fewer formats
    assert capfd.readouterr() == ("", "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak - before < 1_000_000  # kB
