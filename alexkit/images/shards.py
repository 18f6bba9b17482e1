"""Files of a Hugging Face dataset: Arrow and parquet, an image at a time."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alexkit.extras import extra

pyarrow_module = partial(extra, "datasets", "a Hugging Face dataset")
"""A module of pyarrow, which takes a fifth of a second to import."""

_GROUPS_KEPT = 4
"""Row groups of parquet kept decoded; each has some hundred encoded images."""


class Shard(Protocol):
    """One file of a dataset: encoded images and, perhaps, a label for each."""

    place: Path

    def __len__(self) -> int: ...

    def column(self, name: str) -> list[Any]:
        """All values of a small column."""
        ...

    def image(self, row: int) -> Mapping[str, Any] | bytes | None:
        """``{"bytes": …, "path": …}``, or the bytes themselves."""
        ...


class ArrowShard:
    """A memory-mapped Arrow stream; a row costs one copy."""

    def __init__(self, place: Path, images: str) -> None:
        self.place, self._images = place, images
        self._table = arrow_table(place)
        column = self._table.column(images)
        self._chunks = column.chunks
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def column(self, name: str) -> list[Any]:
        """All values of a column."""
        return list(self._table.column(name).to_pylist())

    def image(self, row: int) -> Mapping[str, Any] | bytes | None:
        """One value of the column of images."""
        which = int(np.searchsorted(self._ends, row, side="right"))
        chunk = self._chunks[which]
        value: Mapping[str, Any] | bytes | None = chunk[
            row - (int(self._ends[which]) - len(chunk))
        ].as_py()
        return value

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling the table would copy the whole file.
        return ArrowShard, (self.place, self._images)


class ParquetShard:
    """A parquet file, decoded a row group at a time; the last few groups are kept."""

    def __init__(self, place: Path, images: str) -> None:
        self.place, self._images = place, images
        self._file = pyarrow_module("pyarrow.parquet").ParquetFile(place)
        meta = self._file.metadata
        self._ends = np.cumsum([meta.row_group(i).num_rows for i in range(meta.num_row_groups)])
        self._groups: OrderedDict[int, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def column(self, name: str) -> list[Any]:
        """All values of a column, without reading the others."""
        return list(self._file.read(columns=[name]).column(name).to_pylist())

    def image(self, row: int) -> Mapping[str, Any] | bytes | None:
        """One value of the column of images."""
        which = int(np.searchsorted(self._ends, row, side="right"))
        with self._lock:
            if which not in self._groups:
                self._groups[which] = self._group(which)
                if len(self._groups) > _GROUPS_KEPT:
                    self._groups.popitem(last=False)
            self._groups.move_to_end(which)
            group = self._groups[which]
        value: Mapping[str, Any] | bytes | None = group[
            row - (int(self._ends[which]) - len(group))
        ].as_py()
        return value

    def _group(self, which: int) -> Any:
        """The images of a row group.

        Raises:
            ValueError: they are fewer than its rows, as after damage, so that none can be told
                from the others.
        """
        group = self._file.read_row_group(which, columns=[self._images]).column(self._images)
        rows = self._file.metadata.row_group(which).num_rows
        if len(group) != rows:
            raise ValueError(f"{len(group)} images in {rows} rows")
        return group

    def __reduce__(self) -> tuple[Any, ...]:
        return ParquetShard, (self.place, self._images)


def arrow_table(place: Path) -> Any:
    """The table of an Arrow stream, memory-mapped.

    Raises:
        ArrowException: it is no such stream, or damaged.
    """
    arrow, ipc = pyarrow_module("pyarrow"), pyarrow_module("pyarrow.ipc")
    return ipc.open_stream(arrow.memory_map(os.fspath(place))).read_all()
