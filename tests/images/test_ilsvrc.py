"""ImageNet as downloaded gives what the unpacked tree gives, without unpacking."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from alexkit.choices import Split
from alexkit.errors import DataError, UnreadableImage
from alexkit.images.archive import ArchiveSource
from alexkit.images.batches import read_batches
from alexkit.images.ilsvrc import TRAIN_TAR, VAL_TAR
from alexkit.images.opening import open_source
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import SPLITS, ImageSource, SizedSource
from tests.images.archives import tar_bytes, tiny_jpeg, unpack
from tests.images.test_devkit import meta_csv

pytestmark = pytest.mark.usefixtures("cache")

CLASSES = ("n01440764", "n02100735", "n02119789")
TRUTH = [3, 1, 2, 1, 3, 2, 2]
OF_NUMBER = {1: "n02119789", 2: "n02100735", 3: "n01440764"}
KIT = {
    "devkit/meta_clsloc.csv": meta_csv(),
    "devkit/ILSVRC2012_validation_ground_truth.txt": "\n".join(map(str, TRUTH)).encode(),
}


def train_images() -> dict[str, dict[str, bytes]]:
    """Class -> name -> bytes; neither classes nor names in order, as in the real archive."""
    return {
        wnid: {f"{wnid}_{n}.JPEG": tiny_jpeg(1000 * k + n) for n in (10, 2, 1, 33)[: 4 - k]}
        for k, wnid in enumerate(reversed(CLASSES))
    }


def val_images() -> dict[str, bytes]:
    numbers = [5, 1, 7, 3, 2, 6, 4]
    return {f"ILSVRC2012_val_{n:08d}.JPEG": tiny_jpeg(5000 + n) for n in numbers}


def downloaded(root: Path, kit: bool = True) -> Path:
    inner = {f"{wnid}.tar": tar_bytes(files) for wnid, files in train_images().items()}
    files = {TRAIN_TAR: tar_bytes(inner), VAL_TAR: tar_bytes(val_images())}
    return unpack(root, files | (KIT if kit else {}))


def tree(root: Path, val_in_folders: bool = False) -> Path:
    files = {
        f"train/{wnid}/{name}": data
        for wnid, images in train_images().items()
        for name, data in images.items()
    }
    for name, data in val_images().items():
        wnid = OF_NUMBER[TRUTH[int(name[15:23]) - 1]] + "/" if val_in_folders else ""
        files[f"val/{wnid}{name}"] = data
    return unpack(root, files if val_in_folders else files | KIT)


def rows(source: ImageSource) -> list[tuple[str, int, Split]]:
    records = [source.record(row) for row in range(len(source))]
    return [(record.path, record.label, record.split) for record in records]


def pixels(source: ImageSource) -> np.ndarray:
    every = np.arange(len(source), dtype=np.int64)
    square = Preprocess(resize=8, crop=8).square
    batches = read_batches(source, every, square, batch_size=4, threads=2, exif=False)
    return np.concatenate([batch.pixels.numpy() for batch in batches])


def test_archives_and_trees_are_the_same_data(tmp_path: Path) -> None:
    archives = open_source(downloaded(tmp_path / "archives"))
    flat = open_source(tree(tmp_path / "flat"))
    sorted_val = open_source(tree(tmp_path / "folders", val_in_folders=True))
    assert (archives.kind, flat.kind) == ("ilsvrc", "folder")
    assert archives.classes == flat.classes == sorted_val.classes == CLASSES
    assert rows(archives) == rows(flat)
    assert archives.fingerprint() == flat.fingerprint()
    assert open_source(Path(archives.root)).fingerprint() == archives.fingerprint()
    assert archives.labels.dtype == flat.labels.dtype == np.int32
    assert archives.splits.dtype == flat.splits.dtype == np.uint8
    for row in range(len(archives)):
        assert archives.read(row) == flat.read(row)
    assert np.array_equal(pixels(archives), pixels(flat))
    # Class folders in val give other paths, but the same images with the same labels.
    assert archives.labels.tolist() == sorted_val.labels.tolist()
    assert [archives.read(r) for r in range(16)] == [sorted_val.read(r) for r in range(16)]


def test_a_tree_of_validation_images_alone(tmp_path: Path) -> None:
    """The devkit's folder beside ``val`` is no class, and ``val`` is a split."""
    whole = open_source(tree(tmp_path))
    assert whole.notes == ()
    shutil.rmtree(tmp_path / "train")
    source = open_source(tmp_path)
    assert rows(source) == rows(whole)[9:]
    assert source.notes == ()


def test_labels_are_those_of_the_devkit_by_name(tmp_path: Path) -> None:
    source = open_source(downloaded(tmp_path))
    assert len(source) == 9 + 7
    for row in range(len(source)):
        record = source.record(row)
        if record.split is Split.TRAIN:
            assert record.path.startswith(f"train/{CLASSES[record.label]}/")
        else:
            number = int(re.findall(r"_(\d{8})\.", record.path)[0])
            assert CLASSES[record.label] == OF_NUMBER[TRUTH[number - 1]]
            assert source.read(row) == tiny_jpeg(5000 + number)
    assert SPLITS[source.splits[0]] is Split.TRAIN
    assert any("labels of the validation images from" in note for note in source.notes)


def test_the_working_folder_may_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    downloaded(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    source = open_source(Path("data"))
    monkeypatch.chdir("/")
    assert source.read(0) == train_images()[CLASSES[0]]["n01440764_10.JPEG"]


def test_a_single_archive_under_any_name(tmp_path: Path) -> None:
    folder = downloaded(tmp_path)
    whole = rows(open_source(folder))
    assert rows(open_source(folder / TRAIN_TAR)) == whole[:9]
    (folder / VAL_TAR).rename(folder / "renamed.tar")
    assert rows(open_source(folder / "renamed.tar")) == whole[9:]


@pytest.mark.parametrize("unpacked", ["", "train", "val"])
def test_validation_without_a_devkit_beside_training_is_refused(
    tmp_path: Path, unpacked: str
) -> None:
    folder = mixture(tmp_path, train="train" if unpacked == "train" else "", kit=False)
    if unpacked == "val":
        (folder / VAL_TAR).unlink()
        unpack(folder / "val", val_images())
    with pytest.raises(DataError, match="classes of 7 validation images are not known") as told:
        open_source(folder)
    assert "ILSVRC2012_devkit_t12.tar.gz" in told.value.hint


def test_validation_images_alone_without_a_devkit_have_no_labels(tmp_path: Path) -> None:
    folder = downloaded(tmp_path, kit=False)
    (folder / TRAIN_TAR).unlink()
    for source in (open_source(folder), open_source(folder / VAL_TAR)):
        assert source.labels.tolist() == [-1] * 7
        assert any("no devkit beside" in note for note in source.notes)


def mixture(root: Path, train: str, val: bool = False, kit: bool = True) -> Path:
    """ImageNet with the training images as class archives or folders in a folder ``train``
    ("" is the archive as downloaded), and with ``val`` unpacked or not."""
    downloaded(root, kit)
    if train:
        (root / TRAIN_TAR).unlink()
    for number, (wnid, files) in enumerate(sorted(train_images().items())):
        if train == "train" or (train == "some" and number == 1):
            unpack(root / "train" / wnid, files)
        elif train:
            place = {"tars": "train", "some": "train", "root": "."}[train]
            unpack(root / place, {f"{wnid}.tar": tar_bytes(files)})
    if val:
        (root / VAL_TAR).unlink()
        unpack(root / "val", val_images())
    return root


def visible(folder: Path) -> set[str]:
    return {name for name in os.listdir(folder) if not name.startswith(".")}


@pytest.mark.parametrize(
    ("train", "val"),
    [
        *(("tars", False), ("tars", True), ("root", False), ("root", True), ("some", False)),
        *(("some", True), ("train", False), ("", False), ("", True)),
    ],
)
def test_any_mixture_is_the_same_data(tmp_path: Path, train: str, val: bool) -> None:
    expected = open_source(tree(tmp_path / "tree"))
    folder = mixture(tmp_path / "mixture", train, val)
    before = visible(folder)
    for _ in range(2):  # the second time from what was remembered
        source = open_source(folder)
        assert source.kind == "ilsvrc"
        assert source.classes == expected.classes
        assert rows(source) == rows(expected)
        assert source.fingerprint() == expected.fingerprint()
    assert [source.read(r) for r in range(16)] == [expected.read(r) for r in range(16)]
    assert np.array_equal(pixels(source), pixels(expected))
    assert isinstance(source, SizedSource)
    assert source.sizes().tolist() == [len(expected.read(row)) for row in range(16)]
    assert [source.end(r, 9) for r in range(16)] == [expected.read(r)[-9:] for r in range(16)]
    assert source.end(0, 10**6) == expected.read(0)
    assert pickle.loads(pickle.dumps(source)).read(15) == expected.read(15)
    assert visible(folder) == before
    assert not [note for note in source.notes if "left out" in note or "no image" in note]


@pytest.mark.parametrize("train", ["tars", "some"])
def test_a_folder_of_class_archives_alone_is_one_of_class_folders(
    tmp_path: Path, train: str
) -> None:
    expected = open_source(tree(tmp_path / "tree") / "train")
    source = open_source(mixture(tmp_path / "mixture", train) / "train")
    assert rows(source) == rows(expected)
    assert source.fingerprint() == expected.fingerprint()
    assert {split for _, _, split in rows(source)} == {Split.NONE}


def test_a_class_archive_beside_its_folder_wins(tmp_path: Path) -> None:
    """Whoever unpacks removes the archive last, so the folder may be half of it."""
    expected = open_source(tree(tmp_path / "tree"))
    folder = mixture(tmp_path / "mixture", "tars")
    unpack(folder / "train" / CLASSES[0], {"n01440764_1.JPEG": b"half of it"})
    source = open_source(folder)
    assert source.fingerprint() == expected.fingerprint()
    assert any(f"1 class folder ({CLASSES[0]!r}) left out" in note for note in source.notes)


def test_an_empty_folder_for_a_split_is_not_what_was_unpacked(tmp_path: Path) -> None:
    folder = downloaded(tmp_path / "data")
    expected = open_source(folder).fingerprint()
    (folder / "val").mkdir()
    assert open_source(folder).fingerprint() == expected


def test_class_archives_are_indexed_again_when_one_changes(tmp_path: Path) -> None:
    folder = mixture(tmp_path, "tars")
    assert len(open_source(folder)) == 16
    place = folder / "train" / f"{CLASSES[1]}.tar"
    place.write_bytes(tar_bytes({f"{CLASSES[1]}_5.JPEG": tiny_jpeg(1)}))
    assert len(open_source(folder)) == 14
    os.truncate(place, 700)
    with pytest.raises(DataError, match=f"{CLASSES[1]}.tar is truncated"):
        open_source(folder)


def test_an_image_the_devkit_does_not_know(tmp_path: Path) -> None:
    truth = "devkit/ILSVRC2012_validation_ground_truth.txt"
    folder = unpack(downloaded(tmp_path), {truth: b"3\n1\n2\n1\n3\n2\n"})
    source = open_source(folder)
    assert source.labels.tolist()[9:].count(-1) == 1
    assert source.record(9).path == "val/ILSVRC2012_val_00000007.JPEG"
    assert any("1 validation image not in the devkit" in note for note in source.notes)


def test_a_class_missing_in_one_split_is_told(tmp_path: Path) -> None:
    folder = downloaded(tmp_path)
    images = train_images()
    inner = {f"{wnid}.tar": tar_bytes(images[wnid]) for wnid in CLASSES[:2]}
    inner["n99999999.tar"] = tar_bytes({})
    (folder / TRAIN_TAR).write_bytes(tar_bytes(inner))
    source = open_source(folder)
    assert source.classes == CLASSES
    notes = "\n".join(source.notes)
    assert "train has no image of 1 class ('n02119789')" in notes
    assert f"1 archive in {TRAIN_TAR} without images" in notes


def test_unpacked_beside_the_archives_wins(tmp_path: Path) -> None:
    source = open_source(tree(downloaded(tmp_path)))
    assert source.kind == "folder"
    assert any(".tar 2" in note for note in source.notes)


@pytest.mark.parametrize(
    ("name", "files", "message"),
    [
        (TRAIN_TAR, {"cats.tar": tar_bytes({"1.jpg": b"x"})}, "'cats' in it is no WordNet id"),
        (TRAIN_TAR, {"n01440764.tar": tar_bytes({"1.txt": b"x"})}, "no image"),
        (TRAIN_TAR, {"cat.jpg": b"x"}, "not ImageNet's validation archive"),
        (VAL_TAR, {"ILSVRC2012_val_00000001.JPEG": b"x", "cat.jpg": b"x"}, "'cat'"),
        (VAL_TAR, {}, "no image"),
    ],
)
def test_a_foreign_archive(
    tmp_path: Path, name: str, files: dict[str, bytes], message: str
) -> None:
    unpack(tmp_path, {name: tar_bytes(files)})
    with pytest.raises(DataError, match=message):
        open_source(tmp_path)


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    folder = downloaded(tmp_path)
    size = (folder / TRAIN_TAR).stat().st_size
    os.truncate(folder / TRAIN_TAR, size // 2)
    with pytest.raises(DataError, match="truncated"):
        open_source(folder)


def test_an_archive_that_shrinks_or_goes_while_it_is_read(tmp_path: Path) -> None:
    folder = downloaded(tmp_path)
    source, late = open_source(folder), open_source(folder)
    source.read(0)
    os.truncate(folder / TRAIN_TAR, 1024)
    with pytest.raises(UnreadableImage, match="has become shorter"):
        source.read(8)
    (folder / TRAIN_TAR).unlink()
    with pytest.raises(UnreadableImage, match="is missing"):
        late.read(0)
    assert source.read(9) == late.read(9)  # the other archive goes on


def test_many_threads_and_another_process_read_the_same(tmp_path: Path) -> None:
    source = open_source(downloaded(tmp_path))
    assert isinstance(source, ArchiveSource)
    expected = [source.read(row) for row in range(len(source))]
    fresh = pickle.loads(pickle.dumps(source))
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(source)), 50)).tolist()
    with ThreadPoolExecutor(8) as pool:
        for row, data in zip(order, pool.map(fresh.read, order), strict=True):
            assert data == expected[row]
    assert fresh.fingerprint() == source.fingerprint()


def test_open_archives_are_closed_with_the_source(tmp_path: Path) -> None:
    folder = downloaded(tmp_path)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    if before is None:
        pytest.skip("no /proc to count open files in")
    source = open_source(folder)
    source.read(0)
    source.read(15)
    assert len(os.listdir("/proc/self/fd")) == before + 2
    del source
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_real_structure_of_a_thousand_classes(tmp_path: Path, real_data: Path) -> None:
    """1,000 archives in one and the real devkit: labels are places in torchvision's order."""
    mapping = (real_data / "devkit" / "LOC_synset_mapping.txt").read_text()
    order = [line.split()[0] for line in mapping.splitlines()]
    shuffled = np.random.default_rng(1).permutation(order).tolist()
    photo = tiny_jpeg(0)
    inner = {
        f"{wnid}.tar": tar_bytes({f"{wnid}_{n}.JPEG": photo for n in (20, 3)})
        for wnid in shuffled
    }
    val = {f"ILSVRC2012_val_{n:08d}.JPEG": photo for n in range(1, 50_001)}
    unpack(tmp_path, {TRAIN_TAR: tar_bytes(inner), VAL_TAR: tar_bytes(val)})
    (tmp_path / "devkit").symlink_to(real_data / "devkit")
    source = open_source(tmp_path)
    assert source.classes == tuple(order)
    assert source.labels[:2000].tolist() == [label for label in range(1000) for _ in range(2)]
    assert np.bincount(source.labels[2000:]).tolist() == [50] * 1000
    by_path = {source.record(row).path: int(source.labels[row]) for row in range(2000, 52_000)}
    first = [by_path[f"val/ILSVRC2012_val_{n:08d}.JPEG"] for n in range(1, 6)]
    assert first == [65, 970, 230, 809, 516]
