"""What has been found of a long judgement, kept on disk so that it can go on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.whole_file import whole_file

BASIS = "basis"
"""Under which a file holds what its arrays were found with, and their names."""


@dataclass(frozen=True)
class Kept:
    """A place for some arrays, replaced as a whole.

    Attributes:
        folder: where; None keeps nothing.
        basis: what the arrays are found with; those of another basis are not there.
        name: of this place.
    """

    folder: Path | None = None
    basis: str = ""
    name: str = "kept"

    def within(self, name: object) -> Kept:
        """Another place, named after this one."""
        return replace(self, name=f"{self.name}-{name}")

    def load(self) -> dict[str, npt.NDArray[Any]] | None:
        """What was stored last; None where nothing was, or it cannot be read."""
        if self.folder is None:
            return None
        try:
            with self._path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
                found = {name: file[name] for name in file.files}
        # Cut or altered bytes lead zipfile and NumPy into nearly any exception.
        except Exception:
            return None
        told = found.pop(BASIS, np.empty(0)).tolist()
        return found if told == [self.basis, *sorted(found)] else None

    def store(self, **arrays: npt.NDArray[Any]) -> None:
        """Replaces what is there: killed meanwhile, the old arrays or the new are there. Not
        waited for until they are on the disk: what a power cut damages is found again."""
        if self.folder is None:
            return
        whole: dict[str, Any] = {**arrays, BASIS: np.array([self.basis, *sorted(arrays)])}
        with whole_file(self._path, synced=False) as file:
            np.savez(file, **whole)

    def drop(self) -> None:
        """Removes this place and all that are named after it."""
        if self.folder is not None:
            for path in self.folder.glob(f"{self.name}*.npz*"):
                path.unlink()

    @property
    def _path(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.name}.npz"
