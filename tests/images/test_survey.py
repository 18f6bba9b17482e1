"""One look at each image: format by content, equality by bytes, badness as data."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexkit.images.folder import open_folder
from alexkit.images.survey import OTHER, format_of, survey


@pytest.fixture
def place(tmp_path: Path) -> Path:
    image = Image.fromarray(np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3))
    image.save(tmp_path / "a.jpg")
    image.save(tmp_path / "b.jpg", "PNG")  # the name lies
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    (tmp_path / "d.jpg").write_bytes(b"<html>")
    tags = Image.Exif()
    tags[0x0112] = 6
    image.save(tmp_path / "e.jpg", exif=tags)
    (tmp_path / "f.jpg").symlink_to("nowhere")
    return tmp_path


@pytest.mark.parametrize("threads", [1, 3])
def test_every_image_is_looked_at_in_order(place: Path, threads: int) -> None:
    source = open_folder(place)
    looks = list(survey(source, np.arange(6), threads=threads))
    assert [one.row for one in looks] == [0, 1, 2, 3, 4, 5]
    assert [one.format for one in looks] == ["JPEG", "PNG", "JPEG", OTHER, "JPEG", OTHER]
    a, b, c, d, e, f = looks
    assert (a.width, a.height, a.size) == (8, 6, (place / "a.jpg").stat().st_size)
    assert a.digest == c.digest != b.digest
    assert (e.width, e.height, e.remark) == (6, 8, "EXIF orientation 6 applied")
    assert (d.width, d.reason) == (0, "not an image but an HTML page")
    assert (f.digest, f.size, f.reason) == (b"", 0, "the file is missing")


def test_leaving_early_leaves_no_thread(place: Path) -> None:
    looks = survey(open_folder(place), np.tile(np.arange(6), 50), threads=2)
    next(iter(looks))
    looks.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("alexkit-survey")]


@pytest.mark.parametrize(
    ("saved", "name"),
    [
        *((name, name) for name in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM")),
        *(("WEBP", "WebP"), ("JPEG2000", "JPEG 2000"), ("ICO", OTHER)),
    ],
)
def test_formats_are_known_by_their_first_bytes(saved: str, name: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, saved)
    assert format_of(file.getvalue()) == name
    assert format_of(file.getvalue()[:1]) == OTHER
    assert format_of(b"") == OTHER
