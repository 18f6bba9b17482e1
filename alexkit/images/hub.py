"""Image datasets of the Hugging Face Hub: saved to disk (Arrow), or as parquet files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import DataError, UnreadableImage
from alexkit.images.files import (
    SPLIT_ORDER,
    SPLIT_WORDS,
    counted,
    is_image_name,
    read_file,
    shown,
)
from alexkit.images.labels import missing_notes, number_labels, split_in
from alexkit.images.shards import (
    ArrowShard,
    ParquetShard,
    Shard,
    arrow_table,
    pyarrow_module,
)
from alexkit.images.source import SPLITS, LabelledRows, located
from alexkit.json_text import from_json

_IMAGE_NAMES = ("image", "img", "picture", "photo", "pixel_values", "jpg", "png")
_LABEL_NAMES = ("label", "labels", "fine_label", "class", "category", "target", "cls")
"""What columns are called where the dataset's own record does not say, best first."""

_GONE = "put the dataset back as it was, or save it again with its images inside"


def is_dataset(folder: Path) -> bool:
    """Whether a folder is a saved dataset, or holds parquet files and nothing like images."""
    if (folder / "dataset_dict.json").is_file():
        return True
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return True
    if not _parquet_in(folder):
        return False
    return all(
        place.name == "data" or not (place.is_dir() or is_image_name(place.name))
        for place in folder.iterdir()
        if not place.name.startswith(".")
    )


def open_dataset(data: Path) -> HubSource:
    """Opens what ``Dataset.save_to_disk`` wrote, or parquet as the Hub keeps it.

    Columns are those the dataset's own record calls ``Image`` and ``ClassLabel``, else those
    with the usual names. Classes are matched by name and sorted like everywhere: the number
    a ``ClassLabel`` has in the dataset is not the label here. Splits are the dataset's, or
    the word in a parquet file's name.

    Raises:
        UsageError: pyarrow is not installed.
        DataError: files are missing or damaged, or there is no column of images.
    """
    arrow = pyarrow_module("pyarrow")
    data = Path(os.path.abspath(data))
    files = [(data, split_in(data.name))] if data.is_file() else _files(data)
    files.sort(key=lambda pair: (SPLIT_ORDER.index(pair[1]), os.fspath(pair[0])))
    try:
        shards: list[Shard] = []
        names: list[str | None] = []
        notes: list[str] = []
        for place, _ in files:
            features, schema, make = _opened(place)
            image = _image_column(place, schema, features)
            label, said = _label_column(schema, features)
            shards.append(make(place, image))
            notes += [note for note in said if note not in notes]
            if label is None:
                names += [None] * len(shards[-1])
            else:
                words = _record(features, label).get("names")
                names += [_word(value, words) for value in shards[-1].column(label)]
    except (arrow.lib.ArrowException, OSError, LookupError, ValueError) as error:
        raise DataError(
            f"{shown(str(place))} cannot be read: {_first_line(error)}",
            hint="download or save the dataset again",
        ) from error
    if not names:
        raise DataError(f"{shown(str(data))} has no rows", hint="is it the right dataset?")
    classes, labels, more = number_labels(names)
    codes = np.array([SPLITS.index(split) for _, split in files], np.uint8)
    splits = np.repeat(codes, [len(shard) for shard in shards])
    if any(place.suffix == ".parquet" for place, _ in files):
        notes.append("parquet is read in groups of rows: to train on it, pack it first")
    return HubSource(
        kind="datasets",
        root=shown(str(data)),
        classes=classes,
        labels=labels,
        splits=splits,
        notes=(*notes, *more, *missing_notes(classes, labels, splits)),
        shards=tuple(shards),
    )


def _file_of(folder: Path, path: str) -> bytes:
    """A file that a dataset in ``folder`` names in place of an image's bytes.

    A dataset comes from somewhere else: it does not choose among one's own files.
    """
    place = "" if "\0" in path else os.path.realpath(folder / path)
    try:
        if not place.startswith(os.path.join(os.path.realpath(folder), "")):
            raise UnreadableImage("which is outside its folder", hint=_GONE)
        return read_file(place)
    except UnreadableImage as error:
        raise UnreadableImage(
            f"the dataset names the file {shown(path)!r}: {error.message}", hint=_GONE
        ) from error


@dataclass(eq=False)
class HubSource(LabelledRows):
    """An :class:`~alexkit.images.source.ImageSource` over Arrow or parquet files.

    Attributes:
        shards: the files, in the order of the rows.
    """

    shards: tuple[Shard, ...]

    def __post_init__(self) -> None:
        self._ends = np.cumsum([len(shard) for shard in self.shards])

    def path_of(self, row: int) -> str:
        """The file, and the row in it."""
        return self._path(*self._at(row))

    def read(self, row: int) -> bytes:
        """The image's bytes; safe to call from several threads.

        Raises:
            UnreadableImage: the row has none, lies in a damaged part of the file, or names a
                file that is not there or lies outside the dataset.
        """
        shard, at = self._at(row)
        try:
            value = shard.image(at)
        except (pyarrow_module("pyarrow").lib.ArrowException, OSError, ValueError) as error:
            raise UnreadableImage(
                f"{shown(shard.place.name)} is damaged here: {_first_line(error)}", hint=_GONE
            ) from error
        if isinstance(value, bytes):
            return value
        if value is None:
            raise UnreadableImage("the row has no image", hint="leave it out")
        if isinstance(value.get("bytes"), bytes):
            return bytes(value["bytes"])
        return _file_of(shard.place.parent, value.get("path") or "")

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Path of each row, and the size of the file it is in."""
        for shard in self.shards:
            size = shard.place.stat().st_size
            for at in range(len(shard)):
                yield self._path(shard, at).encode(), size

    def _path(self, shard: Shard, at: int) -> str:
        return f"{shown(os.path.relpath(shard.place, self.root))}/{at:07d}".removeprefix("./")

    def _at(self, row: int) -> tuple[Shard, int]:
        which, at = located(self._ends, row)
        return self.shards[which], at


def _files(folder: Path) -> list[tuple[Path, Any]]:
    """The data files of a folder, with their splits."""
    try:
        if (folder / "dataset_dict.json").is_file():
            found = []
            for name in from_json((folder / "dataset_dict.json").read_bytes())["splits"]:
                split = SPLIT_WORDS.get(name.lower(), split_in(name))
                found += [(place, split) for place, _ in _files(_inside(folder, name))]
            return found
        if (folder / "state.json").is_file():
            state = from_json((folder / "state.json").read_bytes())
            split = SPLIT_WORDS.get(str(state.get("_split")).lower(), SPLIT_ORDER[-1])
            names = [one["filename"] for one in state["_data_files"]]
            return [(_inside(folder, name), split) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{shown(str(folder))} is no whole saved dataset: {error!r}",
            hint="save it again with Dataset.save_to_disk",
        ) from error
    return [(place, split_in(place.name)) for place in _parquet_in(folder)]


def _inside(folder: Path, name: str) -> Path:
    """What a dataset's own record names; never anything elsewhere, nor the folder itself."""
    if name != os.path.basename(name) or name in ("", ".", ".."):
        raise ValueError(f"it names {name!r}")
    return folder / name


def _parquet_in(folder: Path) -> list[Path]:
    """Parquet files in a folder or, as on the Hub, in its ``data``."""
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))


def _opened(place: Path) -> tuple[dict[str, Any], Any, type[ArrowShard] | type[ParquetShard]]:
    """What the dataset's record says of each column, the schema, and the reader."""
    make: type[ArrowShard] | type[ParquetShard]
    if place.suffix == ".parquet":
        schema = pyarrow_module("pyarrow.parquet").read_schema(place)
        make = ParquetShard
    else:
        schema = arrow_table(place).schema
        make = ArrowShard
    features: dict[str, Any] = {}
    kept = (schema.metadata or {}).get(b"huggingface")
    if kept is not None:
        record = from_json(kept)
        try:
            features = {**record["info"]["features"]}
        except TypeError as error:
            raise ValueError("its record of the columns is odd") from error
    return features, schema, make


def _image_column(place: Path, schema: Any, features: Mapping[str, Any]) -> str:
    said = [name for name in schema.names if _type(features, name) == "Image"]
    usual = [name for name in _IMAGE_NAMES if name in schema.names]
    for name in said + usual:
        text = str(schema.field(name).type)
        if text.startswith("struct<") or "binary" in text:
            return str(name)
    raise DataError(
        f"{shown(str(place))} has no column of images: {', '.join(schema.names)}",
        hint=f"name it one of {', '.join(_IMAGE_NAMES)}",
    )


def _label_column(schema: Any, features: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    said = [name for name in schema.names if _type(features, name) == "ClassLabel"]
    usual = [name for name in _LABEL_NAMES if name in schema.names]
    chosen = next((name for name in usual if name in said), (said or usual or [None])[0])
    if len(said) > 1:
        others = [name for name in said if name != chosen]
        return chosen, [f"labels from {chosen!r}; {counted(len(others), 'other', others)}"]
    return chosen, []


def _type(features: Mapping[str, Any], name: str) -> str | None:
    return _record(features, name).get("_type")


def _record(features: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the dataset says of a column; its own words, so of any shape."""
    record = features.get(name)
    return record if isinstance(record, dict) else {}


def _word(value: Any, words: Sequence[str] | None) -> str | None:
    """The class of a row: a name, or a number in a list of names; -1 and nothing are none.

    Raises:
        IndexError: there are not so many names.
    """
    # Where some rows have no label, pandas makes numbers of all others: 1 becomes 1.0.
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None or value == -1 or isinstance(value, (list, dict, float)):
        return None
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if words is None or not isinstance(value, int):
        return str(value)
    if not 0 <= value < len(words):
        raise IndexError(f"a label is {value}, and there are {len(words)} names of classes")
    return str(words[value])


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)[:200]
    return repr(line)[1:-1]  # pyarrow quotes bytes of the file as they are
