"""Hugging Face datasets, made here with pyarrow as ``datasets`` and the Hub lay them out."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from alexkit.errors import DataError, UnreadableImage
from alexkit.images.opening import open_source
from alexkit.images.source import ImageSource
from tests.images.archives import tiny_jpeg

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    pa = None

wants_pyarrow = pytest.mark.skipif(
    pa is None, reason='pyarrow is not installed: pip install "alexkit[datasets]"'
)
pytestmark = wants_pyarrow

FEATURES = {
    "picture": {"_type": "Image"},
    "kind": {"names": ["dog", "ant", "cat"], "_type": "ClassLabel"},
}


def image_column(images: list[dict[str, Any] | None]) -> Any:
    return pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def a_table(numbers: list[int], record: bool = True, names: tuple[str, str] = ("", "")) -> Any:
    images = image_column([{"bytes": tiny_jpeg(n), "path": f"{n}.jpg"} for n in numbers])
    picture, label = names if not record else ("picture", "kind")
    kept = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}
    table = pa.table({picture: images, label: pa.array([n % 3 for n in numbers])})
    return table.replace_schema_metadata(kept if record else None)


def save_to_disk(folder: Path, table: Any, split: str, shards: int = 2) -> Path:
    """What ``Dataset.save_to_disk`` writes."""
    folder.mkdir(parents=True)
    files = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    size = -(-table.num_rows // shards)
    for i, name in enumerate(files):
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table.slice(i * size, size), max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in files], "_split": split}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))
    return folder


def write_parquet(place: Path, table: Any, group: int = 3) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, place, row_group_size=group)
    return place


def table_of(source: ImageSource) -> list[tuple[str, str]]:
    records = [source.record(row) for row in range(len(source))]
    return [(source.classes[r.label] if r.label >= 0 else "", r.split.value) for r in records]


KINDS = ("dog", "ant", "cat")


def test_a_saved_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_to_disk(tmp_path / "d", a_table(list(range(7))), "train")
    monkeypatch.chdir(tmp_path)
    source = open_source(Path("d"))
    monkeypatch.chdir("/")
    assert source.kind == "datasets"
    assert source.classes == ("ant", "cat", "dog")  # by name, not the dataset's own order
    assert table_of(source) == [(KINDS[n % 3], "train") for n in range(7)]
    assert [source.read(row) for row in range(7)] == [tiny_jpeg(n) for n in range(7)]
    assert source.record(5).path == "data-00001-of-00002.arrow/0000001"
    assert open_source(Path(source.root)).fingerprint() == source.fingerprint()


def test_a_saved_dict_of_datasets(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "validation", a_table([5, 6]), "validation", shards=1)
    save_to_disk(tmp_path / "train", a_table([0, 1, 2]), "train")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["validation", "train"]}')
    source = open_source(tmp_path)
    assert [split for _, split in table_of(source)] == ["train"] * 3 + ["val"] * 2
    assert [source.read(row) for row in range(5)] == [tiny_jpeg(n) for n in (0, 1, 2, 5, 6)]
    assert any("val has no image of 1 class ('ant')" in note for note in source.notes)


@pytest.mark.parametrize("record", [True, False])
def test_parquet_in_groups(tmp_path: Path, record: bool) -> None:
    names = ("image", "label")
    for number, split in enumerate(("train", "test")):
        numbers = list(range(20 * number, 20 * number + 17))
        place = tmp_path / "data" / f"{split}-00000-of-00001.parquet"
        write_parquet(place, a_table(numbers, record, names))
    source = open_source(tmp_path)
    assert [split for _, split in table_of(source)] == ["train"] * 17 + ["test"] * 17
    expected = [tiny_jpeg(n) for n in (*range(17), *range(20, 37))]
    assert [source.read(row) for row in range(34)] == expected
    assert source.classes == (("ant", "cat", "dog") if record else ("0", "1", "2"))
    assert any("pack it first" in note for note in source.notes)
    with ThreadPoolExecutor(4) as pool:
        order = [row * 7 % 34 for row in range(340)]
        assert list(pool.map(source.read, order)) == [expected[row] for row in order]
    assert pickle.loads(pickle.dumps(source)).read(33) == expected[33]


def test_one_parquet_file_and_rows_without_label_or_image(tmp_path: Path) -> None:
    beside = tmp_path / "beside.jpg"
    beside.write_bytes(tiny_jpeg(3))
    images = [
        None,
        {"bytes": None, "path": str(beside)},
        {"bytes": None, "path": "gone.jpg"},
        {"bytes": b"x", "path": None},
    ]
    table = pa.table({"image": image_column(images), "label": pa.array([-1, 0, None, 1])})
    source = open_source(write_parquet(tmp_path / "x.parquet", table))
    assert source.labels.tolist() == [-1, 0, -1, 1]
    assert source.read(1) == tiny_jpeg(3)
    assert source.read(3) == b"x"
    with pytest.raises(UnreadableImage, match="the row has no image"):
        source.read(0)
    with pytest.raises(UnreadableImage, match=r"'gone.jpg': the file is missing"):
        source.read(2)


@pytest.mark.parametrize("named", ["/etc/hostname", "../beside.jpg", "link.jpg", "", "a\0.jpg"])
def test_a_dataset_does_not_choose_among_ones_own_files(tmp_path: Path, named: str) -> None:
    (tmp_path / "beside.jpg").write_bytes(b"private")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "link.jpg").symlink_to("../beside.jpg")
    table = pa.table({"image": image_column([{"bytes": None, "path": named}])})
    source = open_source(write_parquet(tmp_path / "d" / "x.parquet", table))
    with pytest.raises(UnreadableImage, match=r"the dataset names the file .* outside"):
        source.read(0)


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0.0, 1.0, None, 1.0], ("0", "1"), [0, 1, -1, 1]),  # pandas, where one is missing
        ([b"ant", b"b\xff", None, b"ant"], ("ant", "b\\xff"), [0, 1, -1, 0]),
        (["a\0", "b", "b", "b"], ("a\\x00", "b"), [0, 1, 1, 1]),
    ],
)
def test_labels_of_other_types(
    tmp_path: Path, labels: list[Any], classes: tuple[str, ...], expected: list[int]
) -> None:
    table = a_table([0, 1, 2, 3], False, ("image", "label"))
    table = table.set_column(1, "label", pa.array(labels))
    source = open_source(write_parquet(tmp_path / "x.parquet", table))
    assert source.classes == classes
    assert source.labels.tolist() == expected


@pytest.mark.parametrize("number", [3, -2])
def test_a_label_without_a_name_is_refused(tmp_path: Path, number: int) -> None:
    table = a_table([0, 1, 2]).set_column(1, "kind", pa.array([0, number, 1]))
    with pytest.raises(DataError, match=f"a label is {number}, and there are 3 names"):
        open_source(write_parquet(tmp_path / "x.parquet", table))


@pytest.mark.parametrize("record", [b"{", b"[]", b"{}", b'{"info": {"features": []}}'])
def test_a_record_of_columns_that_is_odd(tmp_path: Path, record: bytes) -> None:
    table = a_table([0, 1], False, ("image", "label"))
    place = tmp_path / "x.parquet"
    write_parquet(place, table.replace_schema_metadata({b"huggingface": record}))
    with pytest.raises(DataError, match="cannot be read"):
        open_source(place)


def lose_an_image(data: bytearray, column: Any) -> None:
    """Number of values in the header of a data page: field 5, its field 1; twice the number."""
    data[data.index(b"\x2c\x15\x06", column.data_page_offset) + 2] = 2 * 2


def overwrite(data: bytearray, column: Any) -> None:
    begin, size = column.dictionary_page_offset, column.total_compressed_size
    begin = begin or column.data_page_offset
    data[begin : begin + size] = b"\xff" * size


@pytest.mark.parametrize(
    ("damage", "said"),
    [(lose_an_image, "damaged here: 2 images in 3 rows"), (overwrite, "damaged here: ")],
)
def test_a_damaged_group_costs_its_rows_alone_and_gives_none_for_another(
    tmp_path: Path, damage: Callable[[bytearray, Any], None], said: str
) -> None:
    table = a_table(list(range(9)), False, ("image", "y"))
    place = write_parquet(tmp_path / "x.parquet", table)
    data = bytearray(place.read_bytes())
    damage(data, pq.ParquetFile(place).metadata.row_group(1).column(0))
    place.write_bytes(data)
    source = open_source(place)
    for row in range(9):
        if 3 <= row < 6:
            with pytest.raises(UnreadableImage, match=rf"x\.parquet is {said}"):
                source.read(row)
        else:
            assert source.read(row) == tiny_jpeg(row)


def test_what_is_told_of_damage_can_be_printed(tmp_path: Path) -> None:
    place = write_parquet(tmp_path / "x.parquet", a_table([0, 1], False, ("image", "y")))
    data = bytearray(place.read_bytes())
    data[4] = 0x1F  # a page's header begins with a field of no known type, which is quoted
    place.write_bytes(data)
    with pytest.raises(UnreadableImage, match="damaged here") as caught:
        open_source(place).read(0)
    assert caught.value.message.isprintable()


def test_what_is_no_image_dataset(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "label": [1]})
    with pytest.raises(DataError, match="no column of images: text, label"):
        open_source(write_parquet(tmp_path / "text.parquet", table))
    place = write_parquet(tmp_path / "cut.parquet", a_table([1, 2]))
    place.write_bytes(place.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        open_source(place)
    folder = save_to_disk(tmp_path / "d", a_table([1, 2]), "train")
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        open_source(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(DataError, match="no whole saved dataset"):
        open_source(folder)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("dataset_dict.json", '{"splits": ["."]}'),
        ("dataset_dict.json", '{"splits": ["../other"]}'),
        ("dataset_dict.json", '{"splits": [1]}'),
        ("dataset_dict.json", '["train"]'),
        ("state.json", '{"_data_files": [{"filename": "/etc/hostname"}]}'),
        ("state.json", '{"_data_files": [{"filename": 1}]}'),
    ],
)
def test_a_record_of_files_that_is_odd(tmp_path: Path, file: str, text: str) -> None:
    save_to_disk(tmp_path / "other", a_table([1]), "train", shards=1)
    folder = save_to_disk(tmp_path / "d", a_table([1, 2]), "train")
    (folder / file).write_text(text)
    with pytest.raises(DataError, match="is no whole saved dataset"):
        open_source(folder)


def test_class_folders_with_parquet_beside_stay_a_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "notes.parquet", a_table([1]))
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.jpg").write_bytes(tiny_jpeg(1))
    assert open_source(tmp_path).kind == "folder"
