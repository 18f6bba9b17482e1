"""Files of a Hugging Face dataset: Arrow and parquet, an image at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.extras import extra
from alexkit.images.source import located

pyarrow_module = partial(extra, "datasets", "a Hugging Face dataset")
"""A module of pyarrow, which takes a fifth of a second to import."""

_GROUPS_KEPT = 4
"""Row groups of parquet kept decoded; each has some hundred encoded images."""


class Shard:
    """One file of a dataset: encoded images and, perhaps, a label for each.

    Args:
        place: the file.
        images: the column of the images.
        lengths: rows of each piece that the file is read in.
    """

    def __init__(self, place: Path, images: str, lengths: Iterable[int]) -> None:
        self.place, self._images = place, images
        self._ends = np.cumsum([*lengths], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._ends.size else 0

    def column(self, name: str) -> list[Any]:
        """All values of a small column."""
        raise NotImplementedError

    def image(self, row: int) -> Mapping[str, Any] | bytes | None:
        """``{"bytes": …, "path": …}``, or the bytes themselves."""
        which, at = located(self._ends, row)
        value: Mapping[str, Any] | bytes | None = self._piece(which)[at].as_py()
        return value

    def _piece(self, which: int) -> Any:
        """The images of a piece, as an Arrow array."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling what is open would copy the whole file.
        return type(self), (self.place, self._images)


class ArrowShard(Shard):
    """A memory-mapped Arrow stream; a row costs one copy."""

    def __init__(self, place: Path, images: str) -> None:
        self._table = arrow_table(place)
        self._chunks = self._table.column(images).chunks
        super().__init__(place, images, map(len, self._chunks))

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return list(self._table.column(name).to_pylist())

    def _piece(self, which: int) -> Any:
        return self._chunks[which]


class ParquetShard(Shard):
    """A parquet file, decoded a row group at a time; the last few groups are kept."""

    def __init__(self, place: Path, images: str) -> None:
        self._file = pyarrow_module("pyarrow.parquet").ParquetFile(place)
        meta = self._file.metadata
        groups = (meta.row_group(i).num_rows for i in range(meta.num_row_groups))
        super().__init__(place, images, groups)
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def column(self, name: str) -> list[Any]:
        """All values of a column, without reading the others."""
        return list(self._file.read(columns=[name]).column(name).to_pylist())

    def _piece(self, which: int) -> Any:
        """A row group.

        Raises:
            ValueError: it has fewer images than rows, as after damage, so that none can be
                told from the others.
        """
        with self._lock:
            if which not in self._groups:
                group = self._file.read_row_group(which, columns=[self._images])
                images = group.column(self._images)
                rows = self._file.metadata.row_group(which).num_rows
                if len(images) != rows:
                    raise ValueError(f"{len(images)} images in {rows} rows")
                self._groups[which] = images
                if len(self._groups) > _GROUPS_KEPT:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(which)
            return self._groups[which]


def arrow_table(place: Path) -> Any:
    """The table of an Arrow stream, memory-mapped.

    Raises:
        ArrowException: it is no such stream, or damaged.
    """
    arrow, ipc = pyarrow_module("pyarrow"), pyarrow_module("pyarrow.ipc")
    return ipc.open_stream(arrow.memory_map(os.fspath(place))).read_all()
