"""A finished feature file whose features stay where they were written: in parts beside it.

Its rows and classes are its own; each layer is an HDF5 virtual dataset, which says which rows
of which part are which of its rows. Parts are named without a folder, so that all of them can
be moved together. HDF5 reads a part that is not there as NaN and says nothing; here that is
an error, as is a part that is not the one the file was made over.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from alexkit.errors import DamagedFile, DataError, UsageError
from alexkit.features.layout import (
    DTYPES,
    FEATURES,
    PART_FILE,
    PART_SEAL,
    REASON,
    REASON_TEXT,
    STATUS,
    Plan,
    describe,
    not_sealed,
    stored_reason,
    text_type,
)
from alexkit.features.opening import refuse_if_locked
from alexkit.features.seal import append_seal, seal_of
from alexkit.images.draws import Rows
from alexkit.images.hollow import HollowFile
from alexkit.whole_file import whole_file, writing

ELSEWHERE = "HDF5_VDS_PREFIX"
"""The variable by which HDF5 looks for parts in another folder first."""


class Piece(NamedTuple):
    """Rows of a part of ``size`` rows, ascending: which they are there, and in the whole."""

    part: Path
    size: int
    there: Rows
    here: Rows


def unborn_path(path: Path) -> Path:
    """Where a virtual file is written until it is whole."""
    return path.with_name(path.name + ".joining")


def write_virtual(
    path: Path,
    plan: Plan,
    status: npt.NDArray[np.uint8],
    reasons: dict[int, str],
    pieces: Sequence[Piece],
) -> None:
    """Writes the file over sealed parts that lie beside it.

    Args:
        path: the file.
        plan: of the whole; its provenance is that of a finished file.
        status: (N) uint8, none of them *to do*.
        reasons: of every row of status 2 or 3.
        pieces: every row in one of them.

    Raises:
        OutOfSpace: the disk is full, read-only, or not ours to write.
    """
    assert status.all()
    assert sum(piece.here.size for piece in pieces) == len(plan.rows)
    structures = HollowFile()
    with h5py.File(structures, "w") as file:
        describe(file, plan)
        file[STATUS][:] = status
        for row, reason in reasons.items():
            file[REASON][row] = np.array(stored_reason(reason), REASON_TEXT)
        file.attrs.modify("complete", np.bool_(True))
        names = [os.fsencode(piece.part.name) for piece in pieces]
        file.create_dataset(PART_FILE, data=np.array(names, text_type(names)))
        with writing(path):
            seals = [seal_of(piece.part) for piece in pieces]
        assert all(seals)
        file.create_dataset(
            PART_SEAL, data=np.array([list(seal or b"") for seal in seals], "u1")
        )
        for name, shape in plan.layers.items():
            _layer(file, name, shape, plan, pieces)
        left_out = not_sealed(file)
    with writing(path), whole_file(path, unborn_path(path)) as raw:
        structures.pour(raw)
        append_seal(raw, left_out)


def _layer(
    file: h5py.File, name: str, shape: tuple[int, ...], plan: Plan, pieces: Sequence[Piece]
) -> None:
    dtype = DTYPES[plan.dtype]
    layout = h5py.VirtualLayout((len(plan.rows), *shape), dtype)
    for part, size, there, here in pieces:
        # HDF5 takes %b in a name for a number.
        source = h5py.VirtualSource(
            part.name.replace("%", "%%"), f"{FEATURES}/{name}", (size, *shape), dtype
        )
        for a, b in _runs(there, here):
            layout[here[a] : here[b - 1] + 1] = source[there[a] : there[b - 1] + 1]
    file.create_virtual_dataset(f"{FEATURES}/{name}", layout, fillvalue=np.nan)


def _runs(there: Rows, here: Rows) -> list[tuple[int, int]]:
    """Begin and end of each stretch that has no gap in either."""
    cuts = np.flatnonzero((np.diff(there) != 1) | (np.diff(here) != 1)) + 1
    edges = [0, *cuts.tolist(), here.size]
    return list(pairwise(edges))


def names_of_parts(file: h5py.File) -> tuple[str, ...]:
    """The parts that a file was made over; none where its features lie in itself."""
    layers: list[Any] = [layer for layer in file[FEATURES].values() if layer.is_virtual]
    if not layers:
        return ()
    names = [os.fsdecode(name) for name in file[PART_FILE][:].tolist()]
    shown = {source.file_name for layer in layers for source in layer.virtual_sources()}
    in_a_folder = any(os.path.basename(name) != name for name in names)
    if in_a_folder or not {name.replace("%%", "%") for name in shown} <= set(names):
        raise ValueError("it shows rows of files that are not its parts")
    return tuple(names)


def parts_of(path: Path, file: h5py.File) -> tuple[Path, ...]:
    """The parts of an open feature file, each of them there and as it was sealed.

    Raises:
        DamagedFile: one is gone, damaged, or another one.
        DataError: one cannot be read.
        UsageError: one is in use, or HDF5 was told to look for them elsewhere.
    """
    names = names_of_parts(file)
    if names and os.environ.get(ELSEWHERE):
        raise UsageError(
            f"{path} has parts beside it, and {ELSEWHERE} tells HDF5 to read others",
            hint=f"unset {ELSEWHERE}",
        )
    seals = file[PART_SEAL][:] if names else ()
    return tuple(
        _checked(path, name, seal.tobytes()) for name, seal in zip(names, seals, strict=True)
    )


def _checked(path: Path, name: str, seal: bytes) -> Path:
    folders = (path.parent, path.resolve().parent)  # in which HDF5 looks, in its order
    part = next((f / name for f in folders if (f / name).exists()), path.parent / name)
    again = f"delete {path.name}: the same command then extracts its rows"
    try:
        if seal_of(part) != seal:
            refuse_if_locked(part)
            raise DamagedFile(
                f"{path}: its part {name} is damaged, or another one",
                hint=f"put the right one back, or delete it, and {again}",
            )
    except FileNotFoundError:
        raise DamagedFile(
            f"{path}: its part {name} is not beside it", hint=f"put it back, or {again}"
        ) from None
    except OSError as error:
        raise DataError(
            f"{part} cannot be opened: {os.strerror(error.errno or 0)}",
            hint=f"{path.name} needs it: make it readable",
        ) from None
    return part
