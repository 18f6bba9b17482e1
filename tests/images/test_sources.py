"""Folders and lists of every awkward shape: labels, order, and what is told."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexkit.choices import Split
from alexkit.errors import DataError, UnreadableImage, UsageError
from alexkit.images.files import FileSource
from alexkit.images.folder import open_folder
from alexkit.images.listing import open_list
from alexkit.images.opening import open_source
from alexkit.images.source import SPLITS
from tests.images.archives import notes, table, unpack


def touch(root: Path, *paths: str) -> Path:
    """Files whose content is their own path: nothing here is decoded."""
    return unpack(root, {path: path.encode() for path in paths})


# --- folders


def test_class_folders_without_splits(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path, "b/2.jpg", "b/10.JPEG", "a/x.png", "B/y.webp"))
    assert source.kind == "folder"
    assert source.root == str(tmp_path)
    assert source.classes == ("B", "a", "b")
    assert table(source) == [
        ("B/y.webp", "B", ""),
        ("a/x.png", "a", ""),
        ("b/10.JPEG", "b", ""),
        ("b/2.jpg", "b", ""),
    ]
    assert source.notes == ()
    assert source.labels.dtype == np.int32
    assert source.splits.dtype == np.uint8
    assert source.read(3) == b"b/2.jpg"


def test_splits_come_in_order_and_classes_are_matched_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "Validation/c/1.jpg", "Validation/a/1.jpg", "test/a/1.jpg")
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    source = open_folder(tmp_path)
    assert source.classes == ("a", "b", "c")
    assert table(source) == [
        ("train/a/1.jpg", "a", "train"),
        ("train/b/1.jpg", "b", "train"),
        ("Validation/a/1.jpg", "a", "val"),
        ("Validation/c/1.jpg", "c", "val"),
        ("test/a/1.jpg", "a", "test"),
    ]
    assert "train has no image of 1 class ('c')" in notes(source)
    assert "val has no image of 1 class ('b')" in notes(source)
    assert "test has no image of 2 classes ('b', 'c')" in notes(source)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "VAL"])
def test_every_spelling_of_val(tmp_path: Path, name: str) -> None:
    source = open_folder(touch(tmp_path, "train/a/1.jpg", f"{name}/a/1.jpg"))
    assert [split for _, _, split in table(source)] == ["train", "val"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path, "bus/1.jpg", "train/1.jpg", "car/1.jpg"))
    assert source.classes == ("bus", "car", "train")
    assert set(source.splits) == {SPLITS.index(Split.NONE)}


def test_folders_beside_splits_are_left_out_and_told(tmp_path: Path) -> None:
    one = open_folder(touch(tmp_path / "one", "train/a/1.jpg", "labels/1.jpg", "x.jpg"))
    assert table(one) == [("train/a/1.jpg", "a", "train")]
    assert "1 folder ('labels') beside the splits left out" in notes(one)
    assert "1 image beside the splits left out" in notes(one)
    flat = open_folder(touch(tmp_path / "flat", "train/1.jpg", "val/2.jpg", "labels/3.jpg"))
    assert table(flat) == [("train/1.jpg", "", "train"), ("val/2.jpg", "", "val")]


def test_flat_folders_have_no_labels(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path / "flat", "b.jpg", "a.jpg", "empty/words.txt"))
    assert table(source) == [("a.jpg", "", ""), ("b.jpg", "", "")]
    assert source.classes == ()
    assert (source.labels == -1).all()
    split = open_folder(touch(tmp_path / "split", "train/1.jpg", "val/2.jpg"))
    assert table(split) == [("train/1.jpg", "", "train"), ("val/2.jpg", "", "val")]


def test_a_flat_val_beside_a_labelled_train_is_told(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path, "train/a/1.jpg", "val/1.jpg", "val/2.jpg"))
    assert [name for _, name, _ in table(source)] == ["a", "", ""]
    assert "2 images without a label" in notes(source)


def test_nested_images_belong_to_their_class(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path, "a/1.jpg", "a/deep/er/2.jpg", "b/3.jpg"))
    assert table(source) == [
        ("a/1.jpg", "a", ""),
        ("a/deep/er/2.jpg", "a", ""),
        ("b/3.jpg", "b", ""),
    ]
    assert source.read(1) == b"a/deep/er/2.jpg"
    assert source.notes == ()


def test_one_level_too_high_is_told(tmp_path: Path) -> None:
    touch(tmp_path, "flowers/daisy/1.jpg", "flowers/rose/1.jpg")
    source = open_folder(tmp_path)
    assert source.classes == ("flowers",)
    assert "2 folders ('daisy', 'rose')" in notes(source)
    assert f"try {tmp_path}/flowers" in notes(source)
    touch(tmp_path, "trees/oak/1.jpg")
    assert "try one level down" in notes(open_folder(tmp_path))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/.hidden.jpg", "a/.git/x.jpg", ".ipynb_checkpoints/1.jpg")
    touch(tmp_path, "__MACOSX/a/1.jpg", "a/notes.txt", "a/README", "loose.jpg")
    (tmp_path / "b").mkdir()
    source = open_folder(tmp_path)
    assert table(source) == [("a/1.jpg", "a", "")]
    assert "1 folder ('b') without images: no class" in notes(source)
    assert "4 hidden files or folders left out" in notes(source)
    assert "2 files not named like images left out: " in notes(source)
    assert ".txt 1" in notes(source)
    assert "no ending 1" in notes(source)
    assert "1 image ('loose.jpg') beside the class folders left out" in notes(source)


def test_a_class_empty_in_one_split_is_still_a_class(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "extra/1.jpg")
    (tmp_path / "val/b").mkdir()
    source = open_folder(tmp_path)
    assert source.classes == ("a", "b")
    assert "val has no image of 1 class ('b')" in notes(source)
    assert "1 folder ('extra') beside the splits left out" in notes(source)


AWKWARD = ["a,b.jpg", 'say "x".jpg', "two\nlines.jpg", "ünï-日本.jpg", " space .jpg", "#1.jpg"]


def test_awkward_names_stay_as_they_are(tmp_path: Path) -> None:
    folder = "cl,a\nss"
    source = open_folder(touch(tmp_path, *(f"{folder}/{name}" for name in AWKWARD)))
    assert source.classes == (folder,)
    for row, name in enumerate(sorted(AWKWARD)):
        path = f"{folder}/{name}"
        assert source.record(row).path == path
        assert source.read(row) == path.encode()


def test_names_that_are_not_utf8_can_be_stored_and_read(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(place)
    with open(place + b"/na\xefve.jpg", "wb") as file:
        file.write(b"there")
    source = open_folder(tmp_path)
    assert source.classes == (r"caf\xe9",)
    assert source.record(0).path == r"caf\xe9/na\xefve.jpg"
    assert source.read(0) == b"there"
    assert "not UTF-8" in notes(source)
    for text in (*source.classes, source.record(0).path, *source.notes):
        text.encode()
    assert len(source.fingerprint()) == 64


def test_links_that_lead_back_are_not_followed(tmp_path: Path) -> None:
    touch(tmp_path / "data", "a/1.jpg", "b/2.jpg")
    touch(tmp_path / "other", "3.jpg", "more/4.jpg")
    (tmp_path / "data/a/self").symlink_to("../a")
    (tmp_path / "data/a/root").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/above").symlink_to("/")
    (tmp_path / "data/c").symlink_to(tmp_path / "other")
    (tmp_path / "other/more/there").symlink_to(tmp_path / "data/b")
    (tmp_path / "data/b/back").symlink_to(tmp_path / "other")
    source = open_folder(tmp_path / "data")
    assert [(path, name) for path, name, _ in table(source)] == [
        ("a/1.jpg", "a"),
        ("b/2.jpg", "b"),
        ("b/back/3.jpg", "b"),
        ("b/back/more/4.jpg", "b"),
        ("c/3.jpg", "c"),
        ("c/more/4.jpg", "c"),
        ("c/more/there/2.jpg", "c"),
    ]
    assert "5 links" in notes(source)


def test_a_broken_link_stays_a_row(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a/2.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "a/3.jpg")  # reading this would wait for ever
    source = open_folder(tmp_path)
    assert [path for path, _, _ in table(source)] == ["a/1.jpg", "a/2.jpg"]
    with pytest.raises(UnreadableImage, match="the file is missing"):
        source.read(1)


def test_a_link_to_itself_is_a_row_or_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    for name in ("a/2.jpg", "a/loop", "loop"):
        (tmp_path / name).symlink_to(os.path.basename(name))
    source = open_folder(tmp_path)
    assert [path for path, _, _ in table(source)] == ["a/1.jpg", "a/2.jpg"]
    with pytest.raises(UnreadableImage, match="cannot be read: Too many levels"):
        source.read(1)


def test_a_folder_that_goes_away_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "data", "a/1.jpg", "b/1.jpg")
    scan = os.scandir

    def scan_and_move(place: str) -> object:
        if Path(place) == tmp_path / "data" / "a":
            (tmp_path / "data" / "b").rename(tmp_path / "away")
        return scan(place)

    monkeypatch.setattr(os, "scandir", scan_and_move)
    with pytest.raises(DataError, match=r"cannot list the folder .*/b: No such file") as caught:
        open_folder(tmp_path / "data")
    assert "went away" in caught.value.hint


def test_pipes_and_devices_are_not_waited_for(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a/2.jpg").symlink_to("../pipe")
    (tmp_path / "a/3.jpg").symlink_to("/dev/zero")
    source = open_folder(tmp_path)
    assert len(source) == 3
    for row in (1, 2):
        for read in (source.read, lambda row: source.end(row, 4)):
            with pytest.raises(UnreadableImage, match="not a file but a pipe, a device"):
                read(row)
    listed = opened(tmp_path, "a/1.jpg\npipe\n")
    with pytest.raises(UnreadableImage, match="not a file but a pipe"):
        listed.read(1)
    assert source.end(0, 5) == b"1.jpg"


def test_reading_what_cannot_be_read(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path, "a/1.jpg", "a/2.jpg"))
    (tmp_path / "a/1.jpg").unlink()
    (tmp_path / "a/1.jpg").mkdir()
    with pytest.raises(UnreadableImage, match="not a file but a pipe, a device or a folder"):
        source.read(0)
    with open(tmp_path / "a/2.jpg", "r+b") as film:
        film.truncate(2 << 30)
    with pytest.raises(UnreadableImage, match=r"2.0 GiB"):
        source.read(1)


def test_numbers_sorted_as_text_are_told(tmp_path: Path) -> None:
    source = open_folder(touch(tmp_path, *(f"{n}/x.jpg" for n in range(11))))
    assert source.classes[:3] == ("0", "1", "10")
    assert "numbers, sorted as text: 0, 1, 10, 2, …; match" in notes(source)
    few = open_folder(touch(tmp_path / "few", "1/x.jpg", "2/x.jpg", "10/x.jpg"))
    assert "sorted as text: 1, 10, 2; match" in notes(few)
    padded = open_folder(touch(tmp_path / "p", *(f"{n:02}/x.jpg" for n in range(11))))
    assert padded.notes == ()


@pytest.mark.parametrize(
    ("files", "words"),
    [((), "it is empty"), (("a/x.txt", "b.csv"), ".csv 1"), ((".a.jpg",), "1 hidden")],
)
def test_a_folder_without_images(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    with pytest.raises(DataError, match="there is no image in") as caught:
        open_folder(touch(tmp_path, *files))
    assert words in caught.value.message


def test_the_fingerprint_follows_everything_that_matters(tmp_path: Path) -> None:
    def prints() -> str:
        return open_folder(tmp_path).fingerprint()

    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    seen = [prints()]
    assert prints() == seen[0]
    (tmp_path / "a/1.jpg").write_text("another length")
    seen.append(prints())
    touch(tmp_path, "b/2.jpg")
    seen.append(prints())
    (tmp_path / "b").rename(tmp_path / "c")
    seen.append(prints())
    (tmp_path / "a/1.jpg").unlink()
    seen.append(prints())
    assert len(set(seen)) == 5


def test_a_folder_that_moved_keeps_its_fingerprint(tmp_path: Path) -> None:
    touch(tmp_path / "here", "a/1.jpg", "b/1.jpg")
    before = open_folder(tmp_path / "here").fingerprint()
    (tmp_path / "here").rename(tmp_path / "there")
    assert open_folder(tmp_path / "there").fingerprint() == before


def test_a_renamed_label_changes_the_fingerprint(tmp_path: Path) -> None:
    one = opened(tmp_path, "a.jpg,x\n").fingerprint()
    assert opened(tmp_path, "a.jpg,y\n").fingerprint() != one
    assert opened(tmp_path, "a.jpg,x,val\n").fingerprint() != one


# --- lists


def write(tmp_path: Path, text: str | bytes, name: str = "list.csv") -> Path:
    touch(tmp_path, "a.jpg", "b.jpg", "in/c.jpg", "d,1.jpg", 'e"f.jpg', "g\nh.jpg")
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    return tmp_path / name


def opened(tmp_path: Path, text: str | bytes, name: str = "list.csv") -> FileSource:
    return open_list(write(tmp_path, text, name))


def test_a_list_keeps_its_order(tmp_path: Path) -> None:
    source = opened(tmp_path, "b.jpg,dog,train\na.jpg,cat,val\nin/c.jpg,dog,\n")
    assert source.kind == "list"
    assert source.root == str(tmp_path)
    assert source.classes == ("cat", "dog")
    assert table(source) == [
        ("b.jpg", "dog", "train"),
        ("a.jpg", "cat", "val"),
        ("in/c.jpg", "dog", ""),
    ]
    assert source.read(2) == b"in/c.jpg"
    assert source.notes == ()


def test_paths_alone_make_a_list(tmp_path: Path) -> None:
    source = opened(tmp_path, "a.jpg\r\n\r\nb.jpg\r\n", "list.TXT")
    assert table(source) == [("a.jpg", "", ""), ("b.jpg", "", "")]
    assert source.classes == ()


def test_a_header_names_the_columns(tmp_path: Path) -> None:
    text = "\ufeffFilename,Weight,Class,Set\na.jpg,1,dog,Valid\nb.jpg,2,,train\n"
    source = opened(tmp_path, text)
    assert table(source) == [("a.jpg", "dog", "val"), ("b.jpg", "", "train")]
    assert "line 1 read as a header: path, label, split" in notes(source)
    assert "1 image without a label" in notes(source)


@pytest.mark.parametrize("header", ["Image Name,class_name", "id,Label", "label-id,IMAGE_PATH"])
def test_headers_are_known_however_they_are_written(tmp_path: Path, header: str) -> None:
    line = "a.jpg,dog" if not header.startswith("label") else "7,a.jpg"
    source = opened(tmp_path, f"{header}\n{line}\n")
    assert [path for path, _, _ in table(source)] == ["a.jpg"]


def test_a_header_of_unknown_words_is_no_image_and_no_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"line 1 of .* names no file: 'Bild'") as caught:
        opened(tmp_path, "Bild,Klasse\na.jpg,dog\nb.jpg,cat\n")
    assert "call the column of files path" in caught.value.hint
    # Where other files have no ending either, this may be one that is missing.
    touch(tmp_path, "photo")
    assert len(opened(tmp_path, "Bild,dog\nphoto,dog\n")) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.jpg;dog;train", "not semicolons"),
        ("a.jpg\tdog", "not tabs"),
        ("my photos/a.jpg 0", "not spaces"),
        ("gone.jpg;dog", "looked for at .*gone.jpg;dog"),
    ],
)
def test_other_separators_are_told(tmp_path: Path, line: str, words: str) -> None:
    touch(tmp_path, "my photos/a.jpg")
    with pytest.raises(DataError, match="none of the 1 file") as caught:
        opened(tmp_path, line + "\n")
    assert re.search(words, caught.value.hint)


def test_quoted_paths_and_spaces(tmp_path: Path) -> None:
    text = '"d,1.jpg", x , val\n"e""f.jpg", "y, z"\n"g\nh.jpg","x"\n'
    assert table(opened(tmp_path, text)) == [
        ("d,1.jpg", "x", "val"),
        ('e"f.jpg', "y, z", ""),
        ("g\nh.jpg", "x", ""),
    ]


def test_absolute_paths_and_names_that_are_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/na\xefve.jpg", "wb") as file:
        file.write(b"there")
    source = opened(tmp_path, b"na\xefve.jpg,cl\xe4ss\n" + os.fsencode(tmp_path / "a.jpg"))
    assert source.record(0).path == r"na\xefve.jpg"
    assert source.classes == (r"cl\xe4ss",)
    assert source.read(0) == b"there"
    assert source.read(1) == b"a.jpg"
    source.fingerprint()


def test_a_missing_file_stays_a_row(tmp_path: Path) -> None:
    source = opened(tmp_path, "gone.jpg,x\na.jpg,y\na.jpg,y\n")
    assert len(source) == 3
    with pytest.raises(UnreadableImage, match="the file is missing"):
        source.read(0)
    assert "1 path ('a.jpg') listed more than once" in notes(source)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("path,label\n", "is empty"),
        ("a.jpg,x,train\nb.jpg,y,evaluation\n", "line 2 .* unknown split 'evaluation'"),
        ("a.jpg,x\na.jpg,b,val,d\n", "line 2 .* has 4 columns, not 3"),
        (",x\n", "line 1 .* has no path"),
        ("gone.jpg\nlost.jpg\n", "none of the 2 files"),
        ('"a.jpg\n', "line 1 .* is not text or CSV"),
        ("a.jpg,x\n".encode("utf-16"), "is not text or CSV"),
    ],
)
def test_a_bad_list_is_named_with_its_line(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        opened(tmp_path, text)


# --- opening


def test_open_source_decides_by_what_is_there(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jpg,x\n")
    assert open_source(tmp_path).kind == "folder"
    assert open_source(file).kind == "list"


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("Flower", "there is no", "did you mean .*/flowers?"),
        ("flowers/rosse", "there is no", "did you mean .*/flowers/roses?"),
        ("zzz", "there is no", "exists, but holds no zzz"),
        ("flowers/roses/1.jpg", "is one image", "the folder that holds it"),
        ("data.zip", "a file where a folder", r"a list ends in \.csv.*\.tar"),
        ("data.tar", "is no tar archive", "as it was downloaded"),
        ("nowhere", "neither a folder nor a file", "what it points to is gone"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, typed: str, message: str, hint: str) -> None:
    touch(tmp_path, "flowers/roses/1.jpg", "data.tar", "data.zip")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=message) as caught:
        open_source(tmp_path / typed)
    assert caught.value.exit_status == 3
    assert re.search(hint, caught.value.hint)


def test_the_real_folders(real_data: Path) -> None:
    hymenoptera = open_source(real_data / "hymenoptera")
    assert hymenoptera.classes == ("ants", "bees")
    counts = np.bincount(hymenoptera.splits, minlength=4)
    assert counts.tolist() == [0, 245, 153, 0]  # 244 photos and a .gif in train
    sample = open_source(real_data / "imagenet-sample")
    assert len(sample) == 400
    assert sample.classes == ()
    flowers = open_source(real_data / "flowers")
    assert flowers.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert np.bincount(flowers.labels).tolist() == [120] * 5


def test_content_decides_not_the_ending(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a/really_a.JPEG", "PNG")
    assert open_folder(tmp_path).read(0).startswith(b"\x89PNG")


def test_without_pyarrow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match="needs pyarrow") as caught:
        open_source(tmp_path / "x.parquet")
    assert "alexkit[datasets]" in caught.value.hint
