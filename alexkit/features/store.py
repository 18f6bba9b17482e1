"""The feature file as it is read, and the door to the one that writes it.

Reading needs nothing but the file; features are read when they are asked for, in blocks, so
that a file larger than the memory can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from alexkit.choices import Compress, Split
from alexkit.errors import (
    DamagedFile,
    DataError,
    FileMismatch,
    UnknownName,
    UsageError,
)
from alexkit.features.differences import difference_of
from alexkit.features.layout import (
    BLOCK_BYTES,
    CLASSES,
    DTYPES,
    FEATURES,
    FORMAT,
    FORMAT_VERSION,
    LABEL,
    LABEL_DTYPE,
    NUMBER,
    PATH,
    REASON,
    SPLIT,
    STATUS,
    STATUS_DTYPE,
    Plan,
    Status,
    write_skeleton,
)
from alexkit.features.opening import damaged, opened, reading
from alexkit.features.seal import seal_holds
from alexkit.features.virtual import parts_of
from alexkit.features.writer import FeatureWriter, Rows, Values
from alexkit.images.source import SPLITS, split_codes
from alexkit.json_text import from_json
from alexkit.whole_file import check_free, partial_path


class FeatureStore:
    """A feature file, open for reading; features are read when they are asked for.

    Use it in a ``with`` statement, or call :meth:`close`.

    Attributes:
        path: the file.
        complete: False while rows are still to do.
        layers: layer name -> shape of one row, in alphabetical order.
        dtype: number type of every layer.
        classes: K class names, index = label.
        labels: (N) int32, -1 = none.
        splits: (N) uint8, codes into :data:`alexkit.images.source.SPLITS`.
        status: (N) uint8, see :class:`alexkit.features.layout.Status`.
        provenance: what made the file, see ``interface``'s format 1.
        views: V where a row holds V views of its image, (V, …); 0 where it holds one value.
        parts: the files beside it in which its features lie; none where they lie in itself.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self.parts = parts_of(path, file)
        self.complete = bool(file.attrs["complete"])
        self.provenance: dict[str, Any] = from_json(file.attrs["provenance"])
        self._check(isinstance(self.provenance, dict), "the provenance is no JSON object")
        self.status = self._column(STATUS, STATUS_DTYPE)
        self.labels = self._column(LABEL, LABEL_DTYPE)
        self.splits = self._read_splits()
        self.classes = tuple(file[CLASSES].asstr()[:].tolist())
        self.layers, self.dtype = self._read_layers()
        self.views = int(self.provenance.get("stored_views", 0))
        axes = {shape[:1] for shape in self.layers.values()}
        self._check(not self.views or axes == {(self.views,)}, "a layer lacks its views")
        self._check(file[PATH].shape == file[REASON].shape == (len(self),), "row tables differ")
        self._check(int(self.status.max()) <= max(Status), "a status is none of 0, 1, 2, 3")
        self._check(
            not self.complete or bool(self.status.all()), "complete, yet rows are to do"
        )
        self._check(all(self.reasons.values()), "a row is bad, but no reason is given")
        in_range = (self.labels >= -1) & (self.labels < len(self.classes))
        self._check(bool(in_range.all()), "a label has no class")

    @classmethod
    def open(cls, path: Path | str) -> FeatureStore:
        """Opens a feature file, complete or not, for reading; only the row tables are read.

        Raises:
            DataError: there is no such file, or it cannot be read.
            UsageError: it is being written.
            DamagedFile: truncated, edited, foreign, or of another format version; or a part
                of it is.
        """
        path = Path(path)
        with reading(path):
            file = opened(path, "r")
            try:
                if file.attrs.get("format") != FORMAT:
                    raise damaged(path, "is HDF5, but no feature file of alexkit")
                version = int(file.attrs["format_version"])
                if version != FORMAT_VERSION:
                    raise damaged(
                        path, f"has format version {version}, and only 1 is known here"
                    )
                return cls(path, file)
            except BaseException:
                file.close()
                raise

    @classmethod
    def create(
        cls,
        path: Path,
        plan: Plan,
        *,
        compress: Compress = Compress.NONE,
        overwrite: bool = False,
    ) -> FeatureWriter:
        """Begins a feature file, or goes on with the ``.partial`` of an interrupted one.

        Args:
            path: the file to be; until :meth:`FeatureWriter.finish` it is ``<path>.partial``.
            plan: what it is to hold.
            compress: what :meth:`FeatureWriter.finish` does to the file; until then it is
                not compressed.
            overwrite: a finished file may be replaced (when the new one is complete), and an
                interrupted one that does not fit may be thrown away.

        Raises:
            OutputExists: a finished file is there.
            UsageError: ``path`` is a folder, or another process is writing it.
            FileMismatch: the interrupted file was made with something else; the message
                names what.
            DamagedFile: the interrupted file is damaged.
            OutOfSpace: the disk is full, read-only, or not ours to write.
        """
        if path.is_file():
            _drop_leftover(path)
        check_free(path, overwrite)
        if not _can_continue(partial_path(path), plan, discard=overwrite):
            write_skeleton(path, plan)
        return FeatureWriter(path, compress)

    def __len__(self) -> int:
        return int(self.status.size)

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets the file go; what was read stays usable."""
        self._file.close()

    @property
    def sealed(self) -> bool:
        """Whether attributes and tables are known to be as they were written. False where
        another program has changed the file since, and in an unfinished file."""
        return seal_holds(self.path) is True

    @cached_property
    def paths(self) -> tuple[str, ...]:
        """N paths relative to the data root, as :func:`stored_text` has them."""
        with reading(self.path):
            return tuple(self._file[PATH].asstr()[:].tolist())

    @cached_property
    def numbers(self) -> Rows:
        """(N) int64: in a part, which rows of the whole file these are; else 0 … N-1."""
        with reading(self.path):
            if NUMBER not in self._file:
                return np.arange(len(self))
            return self._column(NUMBER, np.dtype(np.int64))

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Row -> why it has no features, for every row of status 2 or 3."""
        with reading(self.path):
            texts = self._file[REASON].asstr()
            bad = np.flatnonzero(self.status >= Status.UNREADABLE)
            return {int(row): str(texts[row]) for row in bad}

    @property
    def data(self) -> Path | None:
        """Where the images were that it was made of; None where it does not say."""
        told = self.provenance.get("data")
        named = told.get("path") or told.get("root") if isinstance(told, dict) else None
        return Path(named) if named else None

    def class_of(self, row: int) -> str:
        """The name of a row's class, "" for none."""
        label = int(self.labels[row])
        return self.classes[label] if label >= 0 else ""

    def named(self, wanted: Sequence[str]) -> list[str]:
        """The layers ``wanted``, each once; all where none is.

        Raises:
            FileMismatch: rows of the file are still to do.
            UnknownName: there is no such layer.
        """
        if not self.complete:
            raise FileMismatch(
                f"{self.path} is unfinished", hint="the command that began it continues it"
            )
        for layer in wanted:
            if layer not in self.layers:
                raise UnknownName(f"layer in {self.path}", layer, self.layers)
        return list(dict.fromkeys(wanted) or self.layers)

    def averaged(self, values: Values) -> Values:
        """(n, …) of values of this file: float32 means over the views, where rows have any."""
        return values.mean(axis=1, dtype=np.float32) if self.views else values

    def nbytes(self, layer: str) -> int:
        """Bytes that all rows of a layer take."""
        return len(self) * int(np.prod(self.layers[layer])) * self.dtype.itemsize

    def rows(self, split: str | None = None, *, labelled: bool = False) -> Rows:
        """The rows that have features, ascending; int64.

        Args:
            split: only these: train, val, test, or "" for rows of no split.
            labelled: only rows with a label.

        Raises:
            UnknownName: there is no such split.
        """
        wanted = self.status == Status.DONE
        if split is not None:
            known = [s.value for s in SPLITS]
            if split not in known:
                raise UnknownName("split", split, known[1:])
            wanted &= self.splits == SPLITS.index(Split(split))
        if labelled:
            wanted &= self.labels >= 0
        return np.flatnonzero(wanted).astype(np.int64)

    def matrix(self, layer: str, split: str | None = None, *, labelled: bool = False) -> Values:
        """(n, D) features of ``rows(split, labelled=labelled)``, flattened, as stored.

        Raises:
            UnknownName: there is no such layer or split.
            DamagedFile: a row that should be done is not all numbers.
        """
        values = self.values(layer, self.rows(split, labelled=labelled))
        return values.reshape(len(values), int(np.prod(values.shape[1:])))

    def values(self, layer: str, rows: Rows, part: tuple[slice, ...] = ()) -> Values:
        """(n, …) features of any rows in any order, each row as it is shaped in the file.

        Args:
            part: of each row only this, e.g. ``(slice(0, 8),)`` for the first 8 channels.

        Raises:
            UnknownName: there is no such layer.
            DamagedFile: a row of status 1 is not all numbers.
        """
        if layer not in self.layers:
            raise UnknownName("layer", layer, self.layers)
        shape = np.broadcast_to(np.int8(0), self.layers[layer])[part].shape
        out = np.empty((rows.size, *shape), self.dtype)
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        step = max(1, BLOCK_BYTES // (self.dtype.itemsize * int(np.prod(shape))))
        with reading(self.path):
            dataset = self._file[f"{FEATURES}/{layer}"]
            for start in (step * np.unique(ascending // step)).tolist():
                a, b = np.searchsorted(ascending, (start, start + step))
                if a < b:
                    first, last = int(ascending[a]), int(ascending[b - 1])
                    block = dataset[(slice(first, last + 1), *part)][ascending[a:b] - first]
                    self._check_finite(layer, ascending[a:b], block)
                    out[order[a:b]] = block
        return out

    def _check_finite(self, layer: str, rows: Rows, block: Values) -> None:
        finite = np.isfinite(block).reshape(rows.size, -1).all(axis=1)
        broken = rows[~finite & (self.status[rows] == Status.DONE)]
        if broken.size:
            raise damaged(self.path, f"row {broken[0]} of {layer} is done but no numbers")

    def _column(self, name: str, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        dataset = self._file[name]
        size = self._file[STATUS].size
        self._check(dataset.shape == (size,) and dataset.dtype == dtype, f"{name} is odd")
        self._check(size > 0, "there are no rows")
        return np.asarray(dataset[:])

    def _read_splits(self) -> npt.NDArray[np.uint8]:
        codes = split_codes(self._file[SPLIT][:])
        self._check(codes.shape == self.status.shape, "row tables differ")
        return codes

    def _read_layers(self) -> tuple[dict[str, tuple[int, ...]], np.dtype[Any]]:
        datasets = dict(self._file[FEATURES].items())
        kinds = {dataset.dtype for dataset in datasets.values()}
        self._check(len(kinds) == 1 and kinds <= set(DTYPES.values()), "the layers are odd")
        counts = {dataset.shape[0] for dataset in datasets.values()}
        self._check(counts == {len(self)}, "a layer has another number of rows")
        return {
            name: tuple(dataset.shape[1:]) for name, dataset in datasets.items()
        }, kinds.pop()

    def _check(self, right: bool, what: str) -> None:
        if not right:
            raise damaged(self.path, f"is damaged or was edited: {what}")


def _drop_leftover(path: Path) -> None:
    """Removes the ``.partial`` of a finished file, where a kill fell between the two."""
    partial = partial_path(path)
    with suppress(FileMismatch, DataError, UsageError):  # then it is not ours to remove
        with FeatureStore.open(path) as finished, FeatureStore.open(partial) as left:
            same = left.complete and left.provenance == finished.provenance
        if same:
            partial.unlink()


def _can_continue(partial: Path, plan: Plan, *, discard: bool) -> bool:
    """Whether an interrupted file is there and is of this plan.

    Raises:
        FileMismatch: it is of another plan, or damaged, and may not be discarded.
    """
    if not partial.exists():
        return False
    try:
        with FeatureStore.open(partial) as found:
            difference = difference_of(found, plan)
    except DamagedFile as error:
        if discard:
            return False
        raise DamagedFile(
            error.message, hint=f"delete {partial} or add --overwrite to start again"
        ) from error
    if difference and not discard:
        raise FileMismatch(
            f"{partial} is of an interrupted run with other settings: {difference}",
            hint="repeat its settings, choose another --out, or add --overwrite",
        )
    return difference is None
