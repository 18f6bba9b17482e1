"""Format 1 of the pack: images decoded and squared once, read from then on as they lie.

    /                  attrs: format, format_version, block_rows, provenance (JSON text)
    /pixels            (N, S, S, 3) uint8, RGB; zeros in a row of status 2
    /rows/path         (N) UTF-8, as the source shows it, in the source's order
    /rows/label        (N) int32, -1 = none
    /rows/split        (N) UTF-8: train | val | test | ""
    /rows/status       (N) uint8, see :class:`Status`
    /rows/note         (N) UTF-8, why a row is unreadable, or what was repaired or converted
    /classes           (K) UTF-8, index = label
    /checks/pixels     (B, 32) uint8, SHA-256 of each ``block_rows`` rows of /pixels
    /checks/rows       (32) uint8, SHA-256 of all the rest; zeros until the pack is complete

A pack of JPEGs has instead of /pixels and /checks/pixels

    /                  attrs: side, which is S
    /jpeg              (M) uint8, the JPEG files one after the other, last in the file; zeros
                       after them where they are shorter than 4096 bytes together
    /rows/end          (N) int64, where in /jpeg a row ends and the next one begins; a row of
                       status 2 has no bytes
    /checks/jpeg       (B, 32) uint8, SHA-256 of the bytes of each ``block_rows`` rows

HDF5 that any reader opens; every dataset whose values are met here is contiguous and has
its place in the file from the start. So reading is a memory map, and writing is plain writes
to known places: no structure of the file ever changes, and a kill cannot break one. (Only
the length of /jpeg is written at the end: it is in three numbers, which move nothing.)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from alexkit.errors import DamagedFile, DataError
from alexkit.images.hollow import H5PY_ERRORS, HollowFile
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import SPLITS, ImageSource, split_words, stored_text
from alexkit.json_text import from_json

SUFFIX = ".pack"
FORMAT = "alexkit/pack"
FORMAT_VERSION = 1
BLOCK_ROWS = 64
"""Rows that are written, and checked, together: 12.6 MB at a side of 256."""
LEAST_JPEG = 4096
"""Bytes of /jpeg at least, and while it grows: HDF5 may put what is shorter elsewhere."""

PIXELS = "pixels"
JPEG = "jpeg"
END = "rows/end"
PATH = "rows/path"
LABEL = "rows/label"
SPLIT = "rows/split"
STATUS = "rows/status"
NOTE = "rows/note"
CLASSES = "classes"
PIXEL_CHECKS = "checks/pixels"
JPEG_CHECKS = "checks/jpeg"
ROW_CHECK = "checks/rows"

NOTE_BYTES = 200
SPLIT_BYTES = max(len(split.value) for split in SPLITS)
DIGEST_BYTES = hashlib.sha256().digest_size
RECIPE_FIELDS = ("resize", "mode", "interpolation", "antialias", "exif")
"""What of a :class:`Preprocess` decides the square that random crops are cut from."""

Array = npt.NDArray[Any]


class Status(IntEnum):
    """What became of a row; the codes of ``/rows/status``."""

    TODO = 0
    DONE = 1
    UNREADABLE = 2


@dataclass(frozen=True)
class Tables:
    """A pack as it lies on the disk: where each dataset is, and the few that are read whole."""

    places: dict[str, tuple[int, np.dtype[Any], tuple[int, ...]]]
    classes: tuple[str, ...]
    provenance: dict[str, Any]
    block_rows: int
    side: int

    @property
    def jpeg(self) -> bool:
        """Whether the images are kept as JPEG files."""
        return JPEG in self.places

    def mapped(self, path: Path, name: str, count: int | None = None) -> Array:
        """The dataset as a read-only memory map; ``count`` in place of its own length."""
        offset, dtype, shape = self.places[name]
        if count is not None:
            shape = (count, *shape[1:])
        # A plain array over the map: numpy.memmap is slow to index.
        return np.asarray(np.memmap(path, dtype, "r", offset, shape))


def recipe_of(preprocess: Preprocess) -> dict[str, Any]:
    """What a pack records of the preprocessing that made it; JSON-safe."""
    return {name: getattr(preprocess, name) for name in RECIPE_FIELDS}


def pack_bytes(rows: int, side: int) -> int:
    """Bytes of the pixels; paths, labels and checksums add less than one in a hundred."""
    return rows * side * side * 3


def is_pack(path: Path) -> bool:
    """Whether a file is HDF5 and says that it is a pack, complete or not."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("format") == FORMAT)
    except H5PY_ERRORS:
        return False


def skeleton(
    source: ImageSource, side: int, provenance: Mapping[str, Any], *, jpeg: bool
) -> HollowFile:
    """A pack with every dataset at full size, /jpeg at its least, and no row done."""
    count = len(source)
    paths = [stored_text(source.record(row).path).encode() for row in range(count)]
    plan = _Plan(
        count,
        side,
        max(map(len, paths)),
        tuple(source.classes),
        json.dumps(provenance, allow_nan=False, sort_keys=True),
        LEAST_JPEG if jpeg else None,
    )
    return _hollow(
        plan,
        {
            PATH: np.array(paths, f"S{plan.path_bytes}"),
            LABEL: source.labels,
            SPLIT: split_words(np.asarray(source.splits)),
        },
    )


def jpeg_length(tables: Tables, length: int) -> Iterator[tuple[int, Array, Array]]:
    """What says that /jpeg has ``length`` bytes, at least :data:`LEAST_JPEG`.

    Yields, in an order in which HDF5 can read the file after each: where a page of the file
    begins, which of its bytes matter, and what they have to be.
    """
    count = tables.places[LABEL][2][0]
    path_bytes = tables.places[PATH][1].itemsize
    provenance = json.dumps(tables.provenance, allow_nan=False, sort_keys=True)
    before, after = (
        _hollow(_Plan(count, tables.side, path_bytes, tables.classes, provenance, bytes_), {})
        for bytes_ in (LEAST_JPEG, length)
    )
    # The end of the file stands in the first page; the shape stands before the size, which
    # may be too large but not too small for it.
    pages = list(after.differences(before))
    yield from (*pages[:1], *reversed(pages[1:]))


@dataclass(frozen=True)
class _Plan:
    """What the structure of a pack depends on; ``jpeg`` is None, or the length of /jpeg."""

    rows: int
    side: int
    path_bytes: int
    classes: tuple[str, ...]
    provenance: str
    jpeg: int | None


def _hollow(plan: _Plan, contents: Mapping[str, Array]) -> HollowFile:
    hollow = HollowFile()
    with h5py.File(hollow, "w") as file:
        _describe(file, plan)
        for name, values in contents.items():
            # h5py tells UTF-8 from other bytes by the array's dtype.
            file[name][...] = np.asarray(values, file[name].dtype)
    return hollow


def _describe(file: h5py.File, plan: _Plan) -> None:
    count, side = plan.rows, plan.side
    file.attrs["format"] = FORMAT
    file.attrs["format_version"] = FORMAT_VERSION
    file.attrs["block_rows"] = BLOCK_ROWS
    file.attrs["provenance"] = plan.provenance
    _fixed(file, PATH, h5py.string_dtype("utf-8", plan.path_bytes), (count,))
    _fixed(file, LABEL, np.dtype("<i4"), (count,))
    _fixed(file, SPLIT, h5py.string_dtype("utf-8", SPLIT_BYTES), (count,))
    names = list(plan.classes)
    file.create_dataset(
        CLASSES, shape=(len(names),), data=names or None, dtype=h5py.string_dtype()
    )
    _fixed(file, STATUS, np.dtype("u1"), (count,))
    _fixed(file, NOTE, h5py.string_dtype("utf-8", NOTE_BYTES), (count,))
    checks = PIXEL_CHECKS if plan.jpeg is None else JPEG_CHECKS
    _fixed(file, checks, np.dtype("u1"), (-(-count // BLOCK_ROWS), DIGEST_BYTES))
    _fixed(file, ROW_CHECK, np.dtype("u1"), (DIGEST_BYTES,))
    if plan.jpeg is None:
        _fixed(file, PIXELS, np.dtype("u1"), (count, side, side, 3))
    else:
        file.attrs["side"] = side
        _fixed(file, END, np.dtype("<i8"), (count,))
        _fixed(file, JPEG, np.dtype("u1"), (plan.jpeg,))


def _fixed(file: h5py.File, name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    """A contiguous dataset that has its place in the file from the start."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    file.create_dataset(name, shape, dtype, dcpl=properties)


def read_tables(path: Path) -> Tables:
    """Finds every dataset of a pack; reads only its classes and its provenance.

    Raises:
        DataError: there is no such file, or it cannot be read.
        DamagedFile: truncated, edited, foreign, or of another format version.
    """
    with reading(path), h5py.File(path, "r", locking=False) as file:
        if file.attrs.get("format") != FORMAT:
            raise damaged(path, "is HDF5, but no pack of alexkit")
        version = int(file.attrs["format_version"])
        if version != FORMAT_VERSION:
            raise damaged(path, f"has format version {version}, and only 1 is known here")
        jpeg = JPEG in file
        (count,) = file[LABEL].shape
        side = int(file.attrs["side"]) if jpeg else file[PIXELS].shape[1]
        block_rows = int(file.attrs["block_rows"])
        checks = JPEG_CHECKS if jpeg else PIXEL_CHECKS
        shapes = {
            **dict.fromkeys((PATH, LABEL, SPLIT, STATUS, NOTE), (count,)),
            checks: (-(-count // block_rows), DIGEST_BYTES),
            ROW_CHECK: (DIGEST_BYTES,),
            **({END: (count,)} if jpeg else {PIXELS: (count, side, side, 3)}),
            **({JPEG: (file[JPEG].size,)} if jpeg else {}),
        }
        places = {}
        for name, shape in shapes.items():
            dataset = file[name]
            kind = {LABEL: "i", END: "i", PATH: "S", SPLIT: "S", NOTE: "S"}.get(name, "u")
            offset = dataset.id.get_offset()
            if dataset.shape != shape or dataset.dtype.kind != kind or offset is None:
                raise damaged(path, f"is damaged or was edited: {name} is odd")
            places[name] = (offset, np.dtype(dataset.dtype.str), shape)
        provenance = from_json(file.attrs["provenance"])
        needed = {"source", "preprocessing", *(["encoding"] if jpeg else [])}
        if not needed <= provenance.keys():
            raise damaged(path, "is damaged or was edited: its provenance is odd")
        classes = tuple(file[CLASSES].asstr()[:].tolist())
        return Tables(places, classes, provenance, block_rows, side)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what h5py raises on a file that is not as it should be into an error of ours."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
        raise DataError(
            f"{path} cannot be opened: {os.strerror(error.errno or 0)}",
            hint="`alexkit pack DATA` makes packs",
        ) from None
    except H5PY_ERRORS as error:
        what = "is truncated" if "truncated file" in str(error) else "is no pack, or damaged"
        raise damaged(path, what) from error


def damaged(path: Path, what: str) -> DamagedFile:
    return DamagedFile(f"{path} {what}", hint="make the pack again")
