"""What every kind of input looks like to the rest of alexkit: numbered, labelled bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split

NO_LABEL = -1
SPLITS = tuple(Split)
"""Index = the code stored in :attr:`ImageSource.splits`."""


def in_splits(codes: npt.NDArray[np.uint8], *splits: Split) -> npt.NDArray[np.bool_]:
    """(n) which of (n) rows are of one of the splits, by their codes."""
    return np.isin(codes, [SPLITS.index(split) for split in splits])


@dataclass(frozen=True)
class ImageRecord:
    """One image: its path as shown to people, its label (-1 = none) and its split."""

    path: str
    label: int
    split: Split


class ImageSource(Protocol):
    """A fixed, ordered list of images; row ``i`` is the same image for ever.

    Attributes:
        kind: what sort of source this is, e.g. ``"folder"``.
        root: where the data is, as an absolute path: what to type to open it again.
        classes: K class names, sorted by code point; index = label. Empty where there are no
            labels.
        labels: (N) int32, -1 = none.
        splits: (N) uint8, codes into :data:`SPLITS`.
        notes: one sentence each about what was ignored or guessed while opening.
    """

    kind: str
    root: str
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.uint8]
    notes: tuple[str, ...]

    def __len__(self) -> int: ...

    def record(self, row: int) -> ImageRecord:
        """Path, label and split of a row."""
        ...

    def read(self, row: int) -> bytes:
        """The encoded bytes of a row; safe to call from several threads at once.

        Raises:
            UnreadableImage: the file is gone or cannot be read.
        """
        ...

    def fingerprint(self) -> str:
        """Hex SHA-256 over paths, labels, splits, classes and file sizes in row order."""
        ...


@runtime_checkable
class SizedSource(ImageSource, Protocol):
    """A source that knows how many bytes an image has, and reaches its end, without reading
    it: enough to tell most images apart."""

    def sizes(self) -> npt.NDArray[np.int64]:
        """(N) int64: bytes of each image; -1 where it is missing."""
        ...

    def end(self, row: int, count: int) -> bytes:
        """The last ``count`` bytes of an image, or all of a shorter one.

        Raises:
            UnreadableImage: the file is gone or cannot be read.
        """
        ...


@dataclass(eq=False)
class LabelledRows:
    """What the sources share that hold the attributes of :class:`ImageSource` as columns."""

    kind: str
    root: str
    classes: tuple[str, ...]
    labels: npt.NDArray[np.int32]
    splits: npt.NDArray[np.uint8]
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def record(self, row: int) -> ImageRecord:
        """Path, label and split of a row."""
        split = SPLITS[self.splits[row]]
        return ImageRecord(self.path_of(row), int(self.labels[row]), split)

    def fingerprint(self) -> str:
        """Hex SHA-256 over classes, and paths, labels, splits and file sizes in row order: the
        same images have the same, packed up or not. What is in a file is not looked at."""
        digest = hashlib.sha256()
        for name in self.classes:
            digest.update(name.encode() + b"\0")
        rows = zip(self.files(), self.labels.tolist(), self.splits.tolist(), strict=True)
        for (path, size), label, split in rows:
            digest.update(path + f"\0{label} {split} {size}\0".encode())
        return digest.hexdigest()

    def sizes(self) -> npt.NDArray[np.int64]:
        """(N) int64: bytes of each image; -1 where it is missing."""
        return np.fromiter((size for _, size in self.files()), np.int64, len(self))

    def path_of(self, row: int) -> str:
        """The path of a row, as shown to people."""
        raise NotImplementedError

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Path and size of each row, in order; the size of one that is missing is -1 bytes."""
        raise NotImplementedError


def stored_text(text: str) -> str:
    r"""``text`` as HDF5 can hold it.

    A byte of a path that is not UTF-8 (Python has it as a lone surrogate ``U+DCxx``) becomes
    ``\udcxx``, and NUL ``\x00``: any reader gets valid UTF-8, and people see which byte it is.
    """
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def split_words(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.bytes_]:
    """The words that files have for codes into :data:`SPLITS`."""
    return np.array([split.value.encode() for split in SPLITS])[codes]


def split_codes(words: npt.NDArray[np.bytes_]) -> npt.NDArray[np.uint8]:
    """The opposite.

    Raises:
        ValueError: one is none of them.
    """
    codes = np.full(words.shape, len(SPLITS), np.uint8)
    for code, split in enumerate(SPLITS):
        codes[words == split.value.encode()] = code
    if codes.max(initial=0) == len(SPLITS):
        raise ValueError("a split is none of train, val, test and none")
    return codes


def located(ends: npt.NDArray[np.int64], row: int) -> tuple[int, int]:
    """Which of several stretches of rows has a row, and where in it; ``ends`` are theirs."""
    which = int(np.searchsorted(ends, row, side="right"))
    return which, row - (int(ends[which - 1]) if which else 0)
