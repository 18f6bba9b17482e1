"""Small photos: centre squares of the right rows, within their time."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from alexkit.images.folder import open_folder
from alexkit.reports.thumbnails import SIDE, jpeg_uri, rows_of, sprite, squares, thumbnails
from tests.conftest import photos_in


def pixels(uri: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    head, data = uri.split(",")
    assert head == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_centre_square_of_each_photo(tmp_path: Path) -> None:
    root = photos_in(tmp_path / "photos", {"a": 1, "b": 1})
    left, right = Image.new("RGB", (100, 300), "red"), Image.new("RGB", (100, 300), "blue")
    wide = Image.new("RGB", (500, 300), "lime")
    wide.paste(left, (0, 0))
    wide.paste(right, (400, 0))
    wide.save(root / "a" / "wide.png")
    made = thumbnails(open_folder(root), ["a/wide.png", "gone.jpg"], seconds=60)
    assert list(made) == ["a/wide.png"]
    found = pixels(made["a/wide.png"])
    assert found.shape == (SIDE, SIDE, 3)
    assert np.abs(found.astype(int) - (0, 255, 0)).max() < 12


def test_rows_are_found_by_path_in_any_split(tmp_path: Path) -> None:
    source = open_folder(photos_in(tmp_path / "p", {"train/a": 3, "train/b": 3, "val/a": 2}))
    paths = [source.record(row).path for row in range(len(source))]
    assert rows_of(source, paths) == {path: row for row, path in enumerate(paths)}
    assert rows_of(source, [paths[-1], "none"]) == {paths[-1]: len(paths) - 1}


def test_what_cannot_be_read_or_is_late_is_left_out(tmp_path: Path) -> None:
    root = photos_in(tmp_path / "photos", {"a": 3, "b": 1})
    source = open_folder(root)
    (root / "a" / "photo001.jpg").write_bytes(b"no photo")
    assert sorted(squares(source, range(4), 16, seconds=60)) == [0, 2, 3]
    assert squares(source, range(4), 16, seconds=-1) == {}
    assert thumbnails(None, ["a"], seconds=1) == {}


def test_a_sprite_holds_each_photo_at_its_place() -> None:
    photos = {row: np.full((8, 8, 3), 40 * row, np.uint8) for row in (5, 1, 3)}
    uri, across, places = sprite(photos, [1, 2, 3, 5])
    sheet = pixels(uri).astype(int)
    assert places == [1, -1, 2, 0]
    for row, place in ((1, 1), (3, 2), (5, 0)):
        y, x = 8 * (place // across), 8 * (place % across)
        assert np.abs(sheet[y : y + 8, x : x + 8] - 40 * row).mean() < 8
    assert sprite({}, [1, 2]) == ("", 1, [-1, -1])
    assert pixels(jpeg_uri(photos[1])).shape == (8, 8, 3)
