"""Where each file of a tar archive lies, found once and remembered; nothing is unpacked."""

from __future__ import annotations

import hashlib
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.errors import DataError
from alexkit.events import Reporter, Stage
from alexkit.images.files import cannot_read, shown
from alexkit.images.indexes import remember, remembered

_VERSION = 1
"""Of the remembered index; another one is made anew."""

_BLOCK = 512
"""Bytes; a tar is a row of such blocks (POSIX.1-1988, ustar)."""

_FILE_TYPES = (b"0", b"\0", b"7")
_LONGEST_EXTRA = 1 << 20
"""Bytes of a long name or pax record; more is damage."""

_REPORT_EVERY = 20_000
"""Members between two progress events."""


@dataclass(frozen=True, eq=False)
class TarIndex:
    """The regular files of one archive, sorted by path as bytes.

    A file of the archive that is itself named ``*.tar`` is not listed but looked into, one
    level deep: ``n01440764.tar`` gives files with paths ``n01440764/…``, which is how the
    training archive of ImageNet is built.

    Attributes:
        offsets: (N) int64, bytes from the archive's beginning to the file's.
        sizes: (N) int64, bytes.
        starts: (N) int64, where each path begins in ``text``.
        ends: (N) int64, where it ends.
        text: (T) uint8, all paths.
        folder: (N) int32, index into ``folders`` of the part before the last ``/``.
        suffix: (N) int32, index into ``suffixes`` of the part of the name after its first
            dot, in lower case.
        folders: bytes of each folder, separated by zero bytes, as uint8.
        suffixes: likewise.
        left_out: (4) int64: links and devices, hidden files, paths that lead outside, and 1
            if the archive's end mark is missing.
        nested: (1) int64, the number of archives inside.
    """

    offsets: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    text: npt.NDArray[np.uint8]
    folder: npt.NDArray[np.int32]
    suffix: npt.NDArray[np.int32]
    folders: npt.NDArray[np.uint8]
    suffixes: npt.NDArray[np.uint8]
    left_out: npt.NDArray[np.int64]
    nested: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets)

    def path(self, row: int) -> bytes:
        """The path of one file inside the archive."""
        return self.text[self.starts[row] : self.ends[row]].tobytes()

    def folder_names(self) -> list[str]:
        """The folders as text, in the order of ``folder``'s codes."""
        return _words(self.folders)

    def suffix_names(self) -> list[str]:
        """The suffixes as text, in the order of ``suffix``'s codes."""
        return _words(self.suffixes)

    def notes(self, archive: str) -> list[str]:
        """What was left out while indexing, in words."""
        links, hidden, outside, endless = self.left_out.tolist()
        told = (
            (links, f"{links:,} links or devices in {archive} left out"),
            (hidden, f"{hidden:,} hidden files in {archive} left out"),
            (outside, f"{outside:,} files in {archive} left out: their paths lead outside"),
            (endless, f"{archive} has no end mark: it may be truncated"),
        )
        return [words for count, words in told if count]


def index_tar(archive: Path, report: Reporter) -> TarIndex:
    """The archive's index, remembered from last time when size and mtime are the same.

    It is kept beside the archive as a hidden file, or in ``$XDG_CACHE_HOME/alexkit/indexes``
    (``~/.cache``) where the archive's folder cannot be written; where neither can, it is made
    again each time. What is kept is checked by the checksums of its format (zip) when read.

    Raises:
        DataError: not a tar, compressed, truncated, damaged, or not readable.
    """
    descriptor = _opened(archive)
    try:
        status = os.fstat(descriptor)
        key = np.array([_VERSION, status.st_size, status.st_mtime_ns], np.int64)
        if (index := _kept(archive, key)) is not None:
            return index
        _read_no_further(descriptor)
        index = _indexed(descriptor, shown(str(archive)), status.st_size, report)
    finally:
        os.close(descriptor)
    remember(archive, key, _columns(index), mode=status.st_mode & 0o666)
    return index


def index_folder(folder: Path, names: Sequence[str], report: Reporter) -> TarIndex:
    """Archives that lie in a folder as one index, as if they lay in one archive.

    ``n01440764.tar`` gives files with paths ``n01440764/…``; offsets count from the beginning
    of the archive that the first part of the path names. Remembered like that of one archive
    until a name, size or mtime changes.

    Args:
        folder: where they are.
        names: of the archives, each ending in ``.tar``.
        report: told how far it is.

    Raises:
        DataError: as :func:`index_tar`.
    """
    mode = folder.stat().st_mode
    states = [(folder / name).stat() for name in names]
    told = repr([(n, s.st_size, s.st_mtime_ns) for n, s in zip(names, states, strict=True)])
    digest = hashlib.sha256(os.fsencode(told)).digest()
    key = np.array([_VERSION, len(names), *np.frombuffer(digest, np.int64)], np.int64)
    if (index := _kept(folder / "archives", key)) is not None:
        return index
    builder = _Builder()
    with Stage(report, f"index {folder.name}", len(names), "archives") as stage:
        for name, state in zip(names, states, strict=True):
            descriptor = _opened(folder / name)
            try:
                _read_no_further(descriptor)
                walk = _Walk(descriptor, shown(str(folder / name)), 0, state.st_size)
                builder.look_into(os.fsencode(name), walk)
            finally:
                os.close(descriptor)
            builder.left_out[3] |= int(not walk.ended)
            stage.advance(1)
    index = builder.built()
    remember(folder / "archives", key, _columns(index), mode=mode & 0o666)
    return index


def _opened(archive: Path) -> int:
    try:
        return os.open(archive, os.O_RDONLY)
    except OSError as error:
        raise cannot_read(archive, error) from error


def _read_no_further(descriptor: int) -> None:
    # Headers lie far apart: reading ahead would read the whole archive.
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)


@dataclass
class _Builder:
    """Columns that grow; Python objects for a million files would take a gigabyte."""

    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    ends: array[int] = field(default_factory=lambda: array("q"))
    text: bytearray = field(default_factory=bytearray)
    folder: array[int] = field(default_factory=lambda: array("i"))
    suffix: array[int] = field(default_factory=lambda: array("i"))
    folders: dict[bytes, int] = field(default_factory=dict)
    suffixes: dict[bytes, int] = field(default_factory=dict)
    left_out: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    nested: int = 0

    def add(self, path: bytes, offset: int, size: int) -> None:
        path = path.partition(b"\0")[0]  # where the system's own tar would end it
        parts = [part for part in path.split(b"/") if part not in (b"", b".")]
        if path.startswith(b"/") or b".." in parts:
            self.left_out[2] += 1
        elif any(part.startswith(b".") or part == b"__MACOSX" for part in parts):
            self.left_out[1] += 1
        elif parts:
            folder, name = b"/".join(parts[:-1]), parts[-1]
            suffix = name.partition(b".")[2].lower()
            self.folder.append(self.folders.setdefault(folder, len(self.folders)))
            self.suffix.append(self.suffixes.setdefault(suffix, len(self.suffixes)))
            self.text += b"/".join(parts)
            self.ends.append(len(self.text))
            self.offsets.append(offset)
            self.sizes.append(size)

    def look_into(self, name: bytes, walk: _Walk) -> None:
        """Adds the files of an archive as if they lay in a folder named after it."""
        self.nested += 1
        for inside, kind, offset, size in walk:
            if kind in _FILE_TYPES:
                self.add(name[: -len(b".tar")] + b"/" + inside, offset, size)
            elif kind != b"5":
                self.left_out[0] += 1

    def built(self) -> TarIndex:
        ends = np.array(self.ends, np.int64)
        starts = np.concatenate([np.zeros(min(1, len(ends)), np.int64), ends[:-1]])
        text = bytes(self.text)
        paths = [text[start:end] for start, end in zip(starts, ends, strict=True)]
        order = np.array(sorted(range(len(paths)), key=paths.__getitem__), np.int64)
        return TarIndex(
            offsets=np.array(self.offsets, np.int64)[order],
            sizes=np.array(self.sizes, np.int64)[order],
            starts=starts[order],
            ends=ends[order],
            text=np.frombuffer(text, np.uint8),
            folder=np.array(self.folder, np.int32)[order],
            suffix=np.array(self.suffix, np.int32)[order],
            folders=np.frombuffer(b"\0".join(self.folders), np.uint8),
            suffixes=np.frombuffer(b"\0".join(self.suffixes), np.uint8),
            left_out=np.array(self.left_out, np.int64),
            nested=np.array([self.nested], np.int64),
        )


def _indexed(descriptor: int, archive: str, size: int, report: Reporter) -> TarIndex:
    builder = _Builder()
    outer = _Walk(descriptor, archive, 0, size)
    seen = 0
    with Stage(report, f"index {os.path.basename(archive)}", size, "bytes") as stage:
        for name, kind, offset, length in outer:
            if kind == b"5":
                continue
            if kind not in _FILE_TYPES:
                builder.left_out[0] += 1
            elif name.endswith(b".tar") and not os.path.basename(name).startswith(b"."):
                builder.look_into(name, _Walk(descriptor, archive, offset, offset + length))
            else:
                builder.add(name, offset, length)
            if len(builder.ends) >= seen + _REPORT_EVERY:
                seen = len(builder.ends)
                stage.reach(offset + length)
        stage.done = size
    builder.left_out[3] = int(not outer.ended)
    return builder.built()


class _Walk:
    """The members of a tar between two offsets of a file: name, type, offset and size.

    ustar, GNU long names and base-256 sizes, pax paths and sizes. Each header's checksum is
    verified, so what is no tar is not taken for one.
    """

    def __init__(self, descriptor: int, archive: str, start: int, stop: int) -> None:
        self._descriptor, self._archive = descriptor, archive
        self._start, self._stop = start, stop
        self.ended = False

    def __iter__(self) -> Iterator[tuple[bytes, bytes, int, int]]:
        at = self._start
        better: dict[bytes, bytes] = {}
        # Without an end mark it stops where the file does.
        while at < self._stop:
            header = os.pread(self._descriptor, _BLOCK, at)
            if len(header) < _BLOCK:
                raise self._cut(at) if at else self._damaged(at)
            if not any(header):
                self.ended = True
                return
            name, kind, size = self._parsed(header, at)
            offset = at + _BLOCK
            size = _decimal(better.get(b"size"), size) if kind not in b"xgLK" else size
            at = offset + -(-size // _BLOCK) * _BLOCK
            if offset + size > self._stop:
                raise self._cut(offset)
            if kind in b"xgLK":
                if size > _LONGEST_EXTRA:
                    raise self._damaged(offset)
                extra = os.pread(self._descriptor, size, offset)
                if kind == b"x":
                    better.update(_pax(extra))
                elif kind == b"L":
                    better[b"path"] = extra.rstrip(b"\0")
                continue
            yield better.get(b"path", name), kind, offset, size
            better = {}

    def _parsed(self, header: bytes, at: int) -> tuple[bytes, bytes, int]:
        try:
            checksum = int(header[148:156].strip(b"\0 "), 8)
            if header[124] & 0x80:  # GNU: a binary number, for files of 8 GiB and more
                size = int.from_bytes(header[125:136], "big")
            else:
                size = int(header[124:136].strip(b"\0 ") or b"0", 8)
        except ValueError as error:
            raise self._damaged(at) from error
        if size < 0 or sum(header) - sum(header[148:156]) + 8 * 0x20 != checksum:
            raise self._damaged(at)
        name = header[:100].partition(b"\0")[0]
        if header[257:263] == b"ustar\0" and header[345]:
            name = header[345:500].partition(b"\0")[0] + b"/" + name
        return name, header[156:157], size

    def _cut(self, at: int) -> DataError:
        return DataError(
            f"{self._archive} is truncated: a file at byte {at:,} reaches beyond the end",
            hint="the download is not whole; fetch it again and compare its checksum",
        )

    def _damaged(self, at: int) -> DataError:
        if at:
            return DataError(
                f"{self._archive} is damaged: no tar header at byte {at:,}",
                hint="fetch it again and compare its checksum",
            )
        start = os.pread(self._descriptor, 6, 0)
        if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")):
            return DataError(
                f"{self._archive} is compressed, so its files cannot be read in place",
                hint="uncompress it to a plain .tar (gunzip, bunzip2, unxz, unzstd)",
            )
        return DataError(
            f"{self._archive} is no tar archive", hint="give the file as it was downloaded"
        )


def _pax(records: bytes) -> dict[bytes, bytes]:
    """``path`` and ``size`` of a pax extended header (POSIX.1-2001, pax)."""
    found: dict[bytes, bytes] = {}
    while records:
        length, _, rest = records.partition(b" ")
        if not length.isdigit() or int(length) <= len(length) + 1:
            break
        word, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
        if word in (b"path", b"size"):
            found[word] = value
        records = records[int(length) :]
    return found


def _decimal(value: bytes | None, otherwise: int) -> int:
    return int(value) if value is not None and value.isdigit() else otherwise


def _words(joined: npt.NDArray[np.uint8]) -> list[str]:
    return [shown(os.fsdecode(word)) for word in joined.tobytes().split(b"\0")]


def _columns(index: TarIndex) -> dict[str, npt.NDArray[Any]]:
    return {column.name: getattr(index, column.name) for column in fields(index)}


def _kept(archive: Path, key: npt.NDArray[np.int64]) -> TarIndex | None:
    columns = remembered(archive, key)
    return None if columns is None else TarIndex(**columns)
