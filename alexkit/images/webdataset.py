"""WebDataset shards: tar archives in which files that share a name make one sample."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from alexkit.errors import DataError
from alexkit.events import Reporter
from alexkit.images.archive import ArchiveSource, Part, is_image_suffix, joined_splits
from alexkit.images.files import counted, is_image_name, names_in, shown
from alexkit.images.labels import missing_notes, number_labels, split_in
from alexkit.images.source import SPLITS
from alexkit.images.tars import TarIndex, index_tar
from alexkit.json_text import from_json

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_LABEL_SUFFIXES = ("cls", "json", "txt")
"""Where a sample's class may be written, best first."""

_JSON_KEYS = ("class_name", "label_name", "wnid", "class", "category", "label", "cls", "target")
"""What a label may be called in a sample's JSON, best first: names before numbers."""

_LONGEST_LABEL = 1 << 20
"""Bytes of a file that holds a label; a larger one is something else."""

_CAPTIONS = 20
"""So many samples and more, with texts that mostly differ, are captioned and not classed."""


def shards_of(pattern: Path) -> list[Path]:
    """``x-{000..009}.tar`` as the list it stands for; a plain path is itself.

    Raises:
        DataError: some shards are not there; a data set with holes is another data set.
    """
    text = os.fspath(pattern)
    pieces = _RANGE.split(text)
    ranges = [
        [str(n).zfill(len(low)) for n in range(int(low), int(high) + 1)]
        for low, high in zip(pieces[1::3], pieces[2::3], strict=True)
    ]
    shards = []
    for numbers in product(*ranges):
        inner = [part for pair in zip(numbers, pieces[3::3], strict=True) for part in pair]
        shards.append(Path("".join([pieces[0], *inner])))
    if missing := [shard for shard in shards if not shard.is_file()]:
        told = counted(len(missing), "shard", [shard.name for shard in missing])
        raise DataError(
            f"{told} of {len(shards):,} not there", hint=f"look in {shown(str(pattern.parent))}"
        )
    if not shards:
        raise DataError(
            f"{shown(text)} stands for no shard", hint="write the lower number first"
        )
    return shards


def is_pattern(data: Path) -> bool:
    """Whether DATA is written as a range of shards."""
    return _RANGE.search(data.name) is not None


def open_webdataset(data: Path, shards: Sequence[Path], report: Reporter) -> ArchiveSource:
    """Opens shards as one list of labelled images, read in place.

    A sample is the files whose paths agree up to the first dot of the name. Its image is the
    file with an image's ending, the simplest ending if there are several (``jpg`` before
    ``seg.png``). Its class is the text of ``.cls``, else a value of ``.json`` (the keys of
    ``_JSON_KEYS``, in that order), else the text of ``.txt``, unless those are captions:
    texts most of which occur once. Its split is the word in the shard's name
    (``imagenet-train-000.tar``), if there is one. Rows come by shard, then by path.

    Args:
        data: what the user typed: a shard, a pattern or a folder of shards.
        shards: the archives, in order; at least one.
        report: told how far indexing is, the first time.

    Raises:
        DataError: a shard is no whole tar, or none holds an image.
    """
    parts, codes, notes = [], [], []
    samples: list[_Sample] = []
    several = 0
    for shard in shards:
        index = index_tar(shard, report)
        notes += index.notes(shard.name)
        found = list(_samples(shard, index))
        prefix = f"{shown(shard.name)}/" if len(shards) > 1 else ""
        rows = np.array([sample.row for sample in found], np.int64)
        parts.append(Part(Path(os.path.abspath(shard)), prefix, index, rows))
        codes.append(SPLITS.index(split_in(shard.name)))
        samples += found
        several += sum(sample.several for sample in found)
    if not samples:
        raise DataError(
            f"there is no image in {shown(str(data))}",
            hint="a shard holds files like 000.jpg and 000.cls side by side",
        )
    if several:
        notes.append(f"{counted(several, 'sample')} with several images: the plainest one used")
    classes, labels, more = number_labels(_names(samples, notes))
    splits = joined_splits(parts, codes)
    return ArchiveSource(
        kind="webdataset",
        root=shown(os.path.abspath(data)),
        classes=classes,
        labels=labels,
        splits=splits,
        notes=(*notes, *more, *missing_notes(classes, labels, splits)),
        parts=tuple(parts),
    )


@dataclass(frozen=True, slots=True)
class _Sample:
    """The index row of the image, the label's text and where that stood ("" = nowhere)."""

    row: int
    text: str
    source: str
    several: bool


def _samples(shard: Path, index: TarIndex) -> Iterator[_Sample]:
    suffixes = index.suffix_names()
    image = [is_image_suffix(suffix) for suffix in suffixes]
    codes = index.suffix.tolist()
    with open(shard, "rb") as file:
        group: list[int] = []
        last = b""
        # Sorted by path, so the files of a sample are neighbours.
        for row in range(len(index)):
            path = index.path(row)
            key = path[: len(path) - len(os.path.basename(path).partition(b".")[2])]
            if key != last and group:
                yield from _sample(file.fileno(), index, group, suffixes, image)
                group = []
            last = key
            if image[codes[row]] or suffixes[codes[row]] in _LABEL_SUFFIXES:
                group.append(row)
        if group:
            yield from _sample(file.fileno(), index, group, suffixes, image)


def _sample(
    descriptor: int, index: TarIndex, group: list[int], suffixes: list[str], image: list[bool]
) -> Iterator[_Sample]:
    images = [row for row in group if image[index.suffix[row]]]
    if not images:
        return
    images.sort(key=lambda row: (suffixes[index.suffix[row]].count("."), row))
    where = {suffixes[index.suffix[row]]: row for row in group}
    for source in _LABEL_SUFFIXES:
        if source in where and index.sizes[where[source]] <= _LONGEST_LABEL:
            at = where[source]
            data = os.pread(descriptor, int(index.sizes[at]), int(index.offsets[at]))
            text = data.decode("utf-8", "backslashreplace").strip()
            if source == "json":
                text = _label_in(text)
            if text:
                yield _Sample(images[0], text, source, len(images) > 1)
                return
    yield _Sample(images[0], "", "", len(images) > 1)


def _label_in(text: str) -> str:
    try:
        record = from_json(text)
    except ValueError:
        return ""
    if isinstance(record, dict):
        for key in _JSON_KEYS:
            value = record.get(key)
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                return str(value)
    return ""


def _names(samples: Sequence[_Sample], notes: list[str]) -> list[str | None]:
    """The class of each sample; texts that are captions are told and left away."""
    texts = [sample.text for sample in samples if sample.source == "txt"]
    captions = len(texts) >= _CAPTIONS and len(set(texts)) > len(texts) / 2
    if captions:
        notes.append("the .txt files mostly differ: taken for captions, not for classes")
    return [
        sample.text if sample.text and not (captions and sample.source == "txt") else None
        for sample in samples
    ]


def shards_in(folder: Path) -> list[Path]:
    """The archives of a folder that holds nothing else that could be data."""
    names = [name for name in names_in(folder) if not name.startswith(".")]
    if any(is_image_name(name) or (folder / name).is_dir() for name in names):
        return []
    return [folder / name for name in names if name.endswith(".tar")]
