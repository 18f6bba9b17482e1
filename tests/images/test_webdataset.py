"""WebDataset shards: samples, labels from three kinds of files, splits, and shard patterns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alexkit.errors import DataError
from alexkit.images.opening import open_source
from alexkit.images.source import ImageSource
from alexkit.images.webdataset import shards_of
from tests.images.archives import notes, table, tar_bytes, tiny_jpeg, unpack

pytestmark = pytest.mark.usefixtures("cache")


def opened(tmp_path: Path, files: dict[str, bytes], name: str = "x.tar") -> ImageSource:
    return open_source(unpack(tmp_path, {name: tar_bytes(files)}) / name)


def test_labels_by_name(tmp_path: Path) -> None:
    photo = tiny_jpeg(1)
    source = opened(
        tmp_path,
        {
            "b/001.jpg": photo,
            "b/001.cls": b"dog\n",
            "a/002.JPEG": tiny_jpeg(2),
            "a/002.json": json.dumps({"width": 5, "label": 3, "class_name": "cat"}).encode(),
            "a/003.png": photo,
            "a/003.txt": b"eel",
            "readme.txt": b"no image of this name",
        },
    )
    assert source.kind == "webdataset"
    assert source.root == str(tmp_path / "x.tar")
    assert source.classes == ("cat", "dog", "eel")
    assert table(source) == [
        ("a/002.JPEG", "cat", ""),
        ("a/003.png", "eel", ""),
        ("b/001.jpg", "dog", ""),
    ]
    assert source.read(0) == tiny_jpeg(2)
    assert source.notes == ()


def test_numbers_keep_their_order(tmp_path: Path) -> None:
    """Position 10 in a list of classes is label 10 here too, not the third as text."""
    files = {}
    for number in range(12):
        files |= {f"{number:03d}.cls": b"%d" % number, f"{number:03d}.jpg": tiny_jpeg(number)}
    source = opened(tmp_path, files)
    assert source.labels.tolist() == list(range(12))
    assert source.classes[:3] == ("00", "01", "02")
    assert list(source.classes) == sorted(source.classes)
    assert "classes are numbers: named 00, 01, …" in notes(source)


def test_a_sample_ends_at_the_first_dot(tmp_path: Path) -> None:
    files = {"1.seg.png": b"mask", "1.jpg": b"photo", "1.cls": b"a"}
    files |= {"1-b.jpg": b"other", "1-b.cls": b"b", "10.jpg": b"ten", "10.cls": b"c"}
    source = opened(tmp_path, files)
    assert table(source) == [("1-b.jpg", "b", ""), ("1.jpg", "a", ""), ("10.jpg", "c", "")]
    assert [source.read(row) for row in range(3)] == [b"other", b"photo", b"ten"]
    assert "1 sample with several images: the plainest one used" in notes(source)


def test_captions_are_no_classes(tmp_path: Path) -> None:
    files = {}
    for n in range(20):
        files |= {f"{n:02d}.jpg": b"x", f"{n:02d}.txt": b"a photo, number %d" % n}
    source = opened(tmp_path, files)
    assert source.classes == ()
    assert (source.labels == -1).all()
    assert "taken for captions" in notes(source)
    for n in range(20):
        files[f"{n:02d}.txt"] = b"cat" if n % 2 else b"dog"
    assert opened(tmp_path, files, "y.tar").classes == ("cat", "dog")


@pytest.mark.parametrize(
    "label",
    [
        b"{",
        b"[1]",
        b'{"other": 1}',
        b'{"label": true}',
        b"",
        pytest.param(b"[" * 9**5, id="[["),
    ],
)
def test_a_label_that_is_none(tmp_path: Path, label: bytes) -> None:
    files = {"1.jpg": b"x", "1.json": label, "2.jpg": b"y", "2.json": b'{"label": "a"}'}
    source = opened(tmp_path, files)
    assert source.labels.tolist() == [-1, 0]
    assert "1 image without a label" in notes(source)


def test_labels_that_no_file_could_hold_are_escaped(tmp_path: Path) -> None:
    files = {"1.jpg": b"x", "1.json": b'{"label": "a\\ud800"}', "2.jpg": b"y", "2.cls": b"b\0c"}
    source = opened(tmp_path, files)
    assert source.classes == ("a\\ud800", "b\\x00c")
    assert len(source.fingerprint()) == 64


def test_a_name_of_thousands_of_digits_is_a_name(tmp_path: Path) -> None:
    files = {"1.jpg": b"x", "1.cls": b"9" * 5000, "2.jpg": b"y", "2.cls": b"7"}
    assert opened(tmp_path, files).classes == ("7", "9" * 5000)


def shards(root: Path) -> Path:
    files = {}
    for split, numbers in (("train", (0, 1, 2)), ("val", (0,))):
        for number in numbers:
            inside = {f"{n}.jpg": tiny_jpeg(n + 10 * number) for n in range(3)}
            inside |= {f"{n}.cls": b"%d" % (n % (2 + (split == "train"))) for n in range(3)}
            files[f"set-{split}-{number:03d}.tar"] = tar_bytes(inside)
    return unpack(root, files)


def test_a_pattern_of_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards(tmp_path))
    source = open_source(Path("set-train-{000..002}.tar"))
    monkeypatch.chdir("/")
    assert len(source) == 9
    assert table(source)[4] == ("set-train-001.tar/1.jpg", "1", "train")
    assert source.read(4) == tiny_jpeg(11)
    assert source.root == str(tmp_path / "set-train-{000..002}.tar")
    assert open_source(Path(source.root)).fingerprint() == source.fingerprint()


def test_a_folder_of_shards(tmp_path: Path) -> None:
    source = open_source(shards(tmp_path))
    assert [split for _, _, split in table(source)] == ["train"] * 9 + ["val"] * 3
    assert source.classes == ("0", "1", "2")
    assert "val has no image of 1 class ('2')" in notes(source)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(b"x")
    assert open_source(tmp_path).kind == "folder"


def test_missing_shards_are_named(tmp_path: Path) -> None:
    shards(tmp_path)
    with pytest.raises(DataError, match=r"2 shards \('set-train-003.tar', .*\) of 5"):
        open_source(tmp_path / "set-train-{000..004}.tar")
    with pytest.raises(DataError, match="stands for no shard"):
        open_source(tmp_path / "set-train-{004..000}.tar")
    with pytest.raises(DataError, match="there is no image in"):
        opened(tmp_path, {"1.cls": b"1"}, "empty.tar")


def test_patterns_multiply_and_keep_their_zeros(tmp_path: Path) -> None:
    files = {f"{a}-{n:02d}.tar": b"" for a in (1, 2) for n in (9, 10)}
    unpack(tmp_path, files)
    found = shards_of(tmp_path / "{1..2}-{09..10}.tar")
    assert [place.name for place in found] == ["1-09.tar", "1-10.tar", "2-09.tar", "2-10.tar"]
