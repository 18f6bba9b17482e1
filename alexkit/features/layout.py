"""Format 1 of the feature file, as data, and the empty file everything is written into.

    /                       attrs: format, format_version, complete, provenance (JSON text)
    /features/<layer>       (N, …) float32 or float16, one row an image
    /rows/path              (N) UTF-8, relative to the data root, in the source's order
    /rows/label             (N) int32, -1 = none
    /rows/split             (N) UTF-8: train | val | test | ""
    /rows/status            (N) uint8, see :class:`Status`
    /rows/reason            (N) UTF-8, why a row has status 2 or 3
    /classes                (K) UTF-8, index = label

Rows with status ≠ 1 hold NaN. Text that is plain ASCII is tagged so and has a fixed
length (see :func:`text_type`). What is written while a run goes on has a fixed length and a
fixed place (contiguous, allocated when the file is made), in HDF5's oldest file version: no
structure of the file ever changes after :func:`write_skeleton`, so a kill cannot break one.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from alexkit.choices import FeatureDtype
from alexkit.errors import OutOfSpace
from alexkit.features.seal import Extents, extents_of
from alexkit.images.hollow import HollowFile
from alexkit.images.source import SPLITS, ImageSource, split_words, stored_text
from alexkit.whole_file import partial_path, whole_file, writing

FORMAT = "alexkit/features"
FORMAT_VERSION = 1

FEATURES = "features"
PATH = "rows/path"
LABEL = "rows/label"
SPLIT = "rows/split"
STATUS = "rows/status"
REASON = "rows/reason"
NUMBER = "rows/number"
"""Only in a part: (N) int64, which rows of the whole file these are."""
CLASSES = "classes"
PART_FILE = "parts/file"
PART_SEAL = "parts/seal"
"""Only in a file whose layers are virtual: (P) names of the files beside it that hold the rows,
and (P, 32) uint8, the SHA-256 that each was sealed with."""

DTYPES: dict[FeatureDtype, np.dtype[Any]] = {
    FeatureDtype.FLOAT32: np.dtype("<f4"),
    FeatureDtype.FLOAT16: np.dtype("<f2"),
}
LABEL_DTYPE = np.dtype("<i4")
STATUS_DTYPE = np.dtype("u1")
LONGEST_FIXED_TEXT = 255
"""Bytes; a column with a longer text in it has variable length, for the room it takes."""
SPLIT_TEXT = h5py.string_dtype("ascii", max(len(split.value) for split in SPLITS))
REASON_BYTES = 200
"""Room of a reason; a file system that knows holes stores only those of bad rows."""
REASON_TEXT = h5py.string_dtype("ascii", REASON_BYTES)

PROVENANCE_ROOM = 2048
"""Bytes kept free behind the provenance, for what is known only at the end."""
ATTRIBUTE_BYTES = 64_000
"""HDF5's oldest file version holds attributes of up to 64 KiB."""
BLOCK_BYTES = 4 * 2**20
"""How much is written, or read, at a time."""


class Status(IntEnum):
    """What became of a row; the codes of ``/rows/status``."""

    TODO = 0
    DONE = 1
    UNREADABLE = 2
    NON_FINITE = 3


class RowProblem(NamedTuple):
    """A row that has no features, and why."""

    row: int
    status: Status
    reason: str


@dataclass(frozen=True)
class RowTable:
    """What every row of a feature file is.

    Attributes:
        paths: N paths relative to the data root.
        labels: (N) int32, -1 = none.
        splits: (N) uint8, codes into :data:`alexkit.images.source.SPLITS`.
        numbers: (N) int64, in a part of a file: which rows of the whole these are.
    """

    paths: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.uint8]
    numbers: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class Plan:
    """All that is fixed before the first image is read.

    Attributes:
        rows: the N rows.
        classes: K class names, index = label.
        layers: layer name -> shape of one row, e.g. ``{"fc7": (4096,)}``.
        dtype: number type of every layer.
        provenance: JSON-safe; its ``"fingerprint"`` is a (nested) mapping of what must be
            equal for an interrupted file to be continued.
    """

    rows: RowTable
    classes: tuple[str, ...]
    layers: Mapping[str, tuple[int, ...]]
    dtype: FeatureDtype
    provenance: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        source: ImageSource,
        layers: Mapping[str, tuple[int, ...]],
        dtype: FeatureDtype,
        provenance: Mapping[str, Any],
    ) -> Plan:
        """All rows of a source, in its order."""
        paths = tuple(source.record(row).path for row in range(len(source)))
        rows = RowTable(paths, source.labels, source.splits)
        return cls(rows, tuple(source.classes), layers, dtype, provenance)

    def __post_init__(self) -> None:
        assert len(self.rows) > 0
        assert len(self.rows) == len(self.rows.labels) == len(self.rows.splits)
        assert self.layers
        assert all(
            "/" not in name and np.prod(shape) > 0 for name, shape in self.layers.items()
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all the features."""
        a_row = sum(int(np.prod(shape)) for shape in self.layers.values())
        return len(self.rows) * a_row * DTYPES[self.dtype].itemsize


def stored_reason(text: str) -> bytes:
    """``text`` in plain ASCII, other characters escaped, cut to the room a reason has."""
    return stored_text(text).encode("ascii", "backslashreplace")[:REASON_BYTES]


def text_type(texts: Sequence[bytes]) -> Any:
    """The HDF5 type for a column of UTF-8 texts.

    Octave's ``load`` gives up at a text that is tagged as UTF-8 or of variable length, and
    reads nothing after it. Most names are plain ASCII, which is UTF-8 too, and short: those
    get a fixed length and the tag that every reader knows.
    """
    longest = max(map(len, texts), default=0)
    encoding = "ascii" if all(map(bytes.isascii, texts)) else "utf-8"
    fixed = encoding == "ascii" and longest <= LONGEST_FIXED_TEXT
    return h5py.string_dtype(encoding, max(longest, 1) if fixed else None)


def not_finite(layer: str, worst: float, dtype: np.dtype[Any]) -> str:
    """The reason of a row of status 3, given the number that ``dtype`` cannot hold."""
    if np.isfinite(worst):
        return f"{layer} reaches {worst:.6g}, more than {dtype.name} can hold"
    return f"{layer} holds {worst}"


def provenance_text(provenance: Mapping[str, Any]) -> bytes:
    """The JSON text of a provenance, in plain ASCII."""
    return json.dumps(provenance, allow_nan=False).encode("ascii")


def write_skeleton(path: Path, plan: Plan) -> None:
    """Writes ``<path>.partial``: every dataset at full size, no row done, all features NaN.

    The NaN are written out, which also takes the disk space before the work begins. Until
    it is whole the file has yet another name, so that a kill leaves nothing that looks right.

    Raises:
        OutOfSpace: the disk is full, read-only, or not ours to write.
    """
    partial = partial_path(path)
    unborn = partial.with_name(partial.name + ".new")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
    if plan.nbytes > free:
        raise OutOfSpace(
            f"{path} needs {plan.nbytes / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free",
            hint="free some space, choose another --out, or store fewer layers or float16",
        )
    skeleton = HollowFile()
    with h5py.File(skeleton, "w") as file:
        describe(file, plan)
        extents = [_layer(file, name, plan) for name in plan.layers]
    with writing(path), whole_file(partial, unborn, synced=False) as raw:
        skeleton.pour(raw)
        for offset, count in extents:
            _fill_with_nan(raw, offset, count, DTYPES[plan.dtype])


def describe(file: h5py.File, plan: Plan) -> None:
    """Writes all but the layers: attributes, classes, and the rows, none of them done."""
    rows, count = plan.rows, len(plan.rows)
    provenance = provenance_text(plan.provenance)
    room = len(provenance) + PROVENANCE_ROOM
    assert room <= ATTRIBUTE_BYTES, f"a provenance of {len(provenance)} bytes is too long"
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["complete"] = False
    file.attrs.create(
        "provenance", provenance.ljust(room), dtype=h5py.string_dtype("utf-8", room)
    )
    _texts(file, PATH, rows.paths)
    file.create_dataset(LABEL, data=rows.labels, dtype=LABEL_DTYPE)
    file.create_dataset(SPLIT, data=split_words(rows.splits), dtype=SPLIT_TEXT)
    if rows.numbers is not None:
        file.create_dataset(NUMBER, data=rows.numbers)
    _texts(file, CLASSES, plan.classes)
    file.create_dataset(STATUS, shape=(count,), dtype=STATUS_DTYPE, dcpl=_placed_at_once())
    file.create_dataset(REASON, shape=(count,), dtype=REASON_TEXT, dcpl=_placed_at_once())


def _texts(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    stored = [stored_text(text).encode() for text in texts]
    kind = text_type(stored)
    data = np.array(stored, kind) if stored else None
    file.create_dataset(name, shape=(len(stored),), data=data, dtype=kind)


def _layer(file: h5py.File, name: str, plan: Plan) -> tuple[int, int]:
    """Makes the dataset of a layer; returns its offset in bytes and its count of numbers."""
    dataset = file.create_dataset(
        f"{FEATURES}/{name}",
        shape=(len(plan.rows), *plan.layers[name]),
        dtype=DTYPES[plan.dtype],
        fillvalue=np.nan,
        fill_time="never",
        dcpl=_placed_at_once(),
    )
    return dataset.id.get_offset(), dataset.size


def _placed_at_once() -> h5py.h5p.PropDCID:
    """Contiguous storage with a place in the file from the start."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    return properties


def not_sealed(file: h5py.File) -> Extents:
    """Where the bytes are that the seal of a finished file leaves out: features and reasons,
    which are most of it, and which HDF5 only copies."""
    return extents_of([*file[FEATURES].values(), file[REASON]])


def _fill_with_nan(raw: BinaryIO, offset: int, count: int, dtype: np.dtype[Any]) -> None:
    block = np.full(min(count, BLOCK_BYTES // dtype.itemsize), np.nan, dtype)
    for start in range(0, count, block.size):
        write_bytes(raw, offset + start * dtype.itemsize, block[: count - start])


def write_bytes(raw: BinaryIO, offset: int, values: npt.NDArray[Any]) -> None:
    """Writes an array's bytes at ``offset``; all of them, or OSError."""
    data = np.ascontiguousarray(values).reshape(-1).view(np.uint8).data
    raw.seek(offset)
    while data:  # an unbuffered file may take a part only
        data = data[raw.write(data) :]
