"""Several sources as one: what is unpacked beside what is still in its archive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexkit.images.archive import ArchiveSource
from alexkit.images.files import SPLIT_ORDER, FileSource
from alexkit.images.source import NO_LABEL, SPLITS, LabelledRows


@dataclass(eq=False)
class JoinedSource(LabelledRows):
    """An :class:`~alexkit.images.source.ImageSource` over the rows of others.

    Attributes:
        parts: the others; their own labels and classes are not used any more.
        which: (N) uint8, the part of each row.
        at: (N) int64, the row in that part.
    """

    parts: tuple[FileSource | ArchiveSource, ...]
    which: npt.NDArray[np.uint8]
    at: npt.NDArray[np.int64]

    def path_of(self, row: int) -> str:
        """The path that the part gives."""
        return self.parts[int(self.which[row])].path_of(int(self.at[row]))

    def read(self, row: int) -> bytes:
        """The image's bytes; raises what the part raises."""
        return self.parts[int(self.which[row])].read(int(self.at[row]))

    def end(self, row: int, count: int) -> bytes:
        """The last ``count`` bytes of an image, or all of a shorter one."""
        return self.parts[int(self.which[row])].end(int(self.at[row]), count)

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Path and size of each row."""
        every = [list(part.files()) for part in self.parts]
        for which, at in zip(self.which.tolist(), self.at.tolist(), strict=True):
            yield every[which][at]


def joined(kind: str, root: str, parts: Sequence[FileSource | ArchiveSource]) -> JoinedSource:
    """Rows by split, then class, as in one folder; classes matched by name.

    Within a class of a split the rows keep the order of the parts and of each part.

    Args:
        kind: of the source to make.
        root: what to type to open it again.
        parts: at least one.
    """
    classes = tuple(sorted({name for part in parts for name in part.classes}))
    label_of = {name: label for label, name in enumerate(classes)}
    labels = np.concatenate([_renamed(part, label_of) for part in parts])
    splits = np.concatenate([part.splits for part in parts])
    rank = np.array([SPLIT_ORDER.index(split) for split in SPLITS])
    order = np.lexsort((labels, rank[splits]))  # stable, the last key first
    return JoinedSource(
        kind=kind,
        root=root,
        classes=classes,
        labels=labels[order],
        splits=splits[order],
        notes=tuple(note for part in parts for note in part.notes),
        parts=tuple(parts),
        which=np.repeat(np.arange(len(parts), dtype=np.uint8), [len(p) for p in parts])[order],
        at=np.concatenate([np.arange(len(part)) for part in parts])[order],
    )


def _renamed(
    part: FileSource | ArchiveSource, label_of: dict[str, int]
) -> npt.NDArray[np.int32]:
    # The last place is where a row without a label leads.
    numbers = [*(label_of[name] for name in part.classes), NO_LABEL]
    return np.array(numbers, np.int32)[part.labels]
