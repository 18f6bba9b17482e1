"""NumPy's ``.npz`` written array by array, so that none need be in memory as a whole."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import numpy.lib.format as npy
import numpy.typing as npt


@contextmanager
def array_in(
    archive: zipfile.ZipFile, name: str, dtype: npt.DTypeLike, shape: tuple[int, ...]
) -> Iterator[IO[bytes]]:
    """An array of an ``.npz`` whose values are still to be written, in C order."""
    # A size is known only at the end; a member above 2 GiB must be announced before.
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        described = npy.dtype_to_descr(np.dtype(dtype))
        header = {"descr": described, "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(member, header)
        yield member


def put_array(archive: zipfile.ZipFile, name: str, values: npt.NDArray[Any]) -> None:
    """An array that is in memory."""
    with array_in(archive, name, values.dtype, values.shape) as member:
        member.write(np.ascontiguousarray(values).tobytes())
