"""A finished pack as a source of images: as pixels, or as small JPEG files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alexkit.errors import DamagedFile, UnreadableImage
from alexkit.images.decode import Decoded, decode
from alexkit.images.draws import Rows
from alexkit.images.files import shown
from alexkit.images.pack import (
    BLOCK_ROWS,
    END,
    JPEG,
    JPEG_CHECKS,
    LABEL,
    NOTE,
    PATH,
    PIXEL_CHECKS,
    PIXELS,
    RECIPE_FIELDS,
    ROW_CHECK,
    SPLIT,
    STATUS,
    Array,
    Status,
    Tables,
    damaged,
    read_tables,
    reading,
    recipe_of,
)
from alexkit.images.preprocess import Pixels, Preprocess
from alexkit.images.source import NO_LABEL, SPLITS, ImageRecord, split_codes


class PackSource:
    """A pack as an :class:`~alexkit.images.source.ImageSource`; from :func:`open_pack`.

    What :class:`PixelPack` and :class:`JpegPack` have in common.

    Attributes:
        kind, root, classes, labels, splits, notes: see the protocol; ``root`` is the file.
        path: the file.
        side: S, pixels.
        status: (N) uint8, see :class:`Status`.
        complete: False for a ``.partial``.
        provenance: ``source`` (root, kind, fingerprint), ``preprocessing``, ``versions``;
            of JPEGs also ``encoding``.
        holds: what an image is kept as, in words.
    """

    kind = "pack"

    def __init__(self, path: Path, tables: Tables, holds: str) -> None:
        self.path = path
        self.root = shown(os.path.abspath(path))
        self.classes = tables.classes
        self.provenance = tables.provenance
        self.side = tables.side
        self.holds = holds
        self.labels: npt.NDArray[np.int32] = tables.mapped(path, LABEL)
        self.status: npt.NDArray[np.uint8] = tables.mapped(path, STATUS)
        try:
            self.splits = split_codes(tables.mapped(path, SPLIT))
        except ValueError as error:
            raise damaged(path, f"was edited: {error}") from None
        self._paths = tables.mapped(path, PATH)
        self._notes = tables.mapped(path, NOTE)
        self._checks = tables.mapped(path, JPEG_CHECKS if tables.jpeg else PIXEL_CHECKS)
        self._row_check = tables.mapped(path, ROW_CHECK)
        self._block_rows = tables.block_rows
        self.complete = bool(self._row_check.any())
        made = self.provenance["preprocessing"]
        turned = "applied" if made["exif"] else "ignored"
        self.notes: tuple[str, ...] = (
            f"a pack: {holds}, {made['mode']} side {made['resize']},"
            f" {made['interpolation']}, EXIF {turned}",
        )
        good = (self.labels >= NO_LABEL) & (self.labels < len(self.classes))
        if not good.all() or self.status.max() > max(Status):
            raise damaged(path, "was edited: a label has no class, or a status no meaning")

    @property
    def done(self) -> int:
        """Rows that are finished: all before it are, and it begins a block."""
        todo = np.flatnonzero(self.status == Status.TODO)
        return int(todo[0]) // BLOCK_ROWS * BLOCK_ROWS if todo.size else len(self)

    def __len__(self) -> int:
        return len(self.labels)

    def record(self, row: int) -> ImageRecord:
        """Path, label and split of a row."""
        split = SPLITS[self.splits[row]]
        return ImageRecord(_text(self._paths[row]), int(self.labels[row]), split)

    def read(self, row: int) -> bytes:
        """A file that any decoder reads.

        Raises:
            UnreadableImage: the row's image could not be decoded when the pack was made.
        """
        raise NotImplementedError

    def noted(self) -> dict[int, str]:
        """Row -> why it is unreadable, or what was repaired or converted."""
        return {
            row: _text(self._notes[row]) for row in np.flatnonzero(self._notes != b"").tolist()
        }

    def fingerprint(self) -> str:
        """Hex SHA-256 over every checksum in the pack, so over all that is in it."""
        digest = hashlib.sha256(self._checks.tobytes())
        digest.update(self._row_check.tobytes())
        return digest.hexdigest()

    def differences(self, preprocess: Preprocess) -> tuple[str, ...]:
        """Where ``preprocess`` asks for other pixels than are in here, in words."""
        made = self.provenance["preprocessing"]
        wanted = recipe_of(preprocess)
        return tuple(
            f"{name} {made.get(name)!r}, not {wanted[name]!r}"
            for name in RECIPE_FIELDS
            if made.get(name) != wanted[name]
        )

    def verify(self) -> Iterator[tuple[str, int, bool]]:
        """Reads everything: what, rows read so far, and whether it is as it was written."""
        for block, first in enumerate(range(0, len(self), self._block_rows)):
            last = min(first + self._block_rows, len(self))
            found = hashlib.sha256(self._stored(first, last).data).digest()
            right = found == self._checks[block].tobytes()
            yield f"rows {first} to {last - 1}", last, right
        yield "the tables", len(self), self.rows_digest() == self._row_check.tobytes()

    def rows_digest(self) -> bytes:
        """SHA-256 over classes, provenance, row tables and the checksums of the pixels."""
        told = [list(self.classes), self.provenance, self.side, self._block_rows]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
        for column in (
            *(self._paths, self.labels, self.splits, self.status, self._notes),
            *(self._checks, *self._more_columns()),
        ):
            digest.update(column.tobytes())
        return digest.digest()

    def _stored(self, first: int, last: int) -> Array:
        """What the checksum of the rows from ``first`` to before ``last`` is of."""
        raise NotImplementedError

    def _more_columns(self) -> tuple[Array, ...]:
        """Row tables that packs of this sort have besides."""
        return ()

    def _note_of_good(self, row: int) -> str:
        """What was repaired or converted; an error where there is no image."""
        note = _text(self._notes[row])
        if self.status[row] != Status.DONE:
            raise UnreadableImage(
                note or "not packed", hint="mend the original and make the pack again"
            )
        return note


class PixelPack(PackSource):
    """A pack of pixels.

    Nothing is decoded: :func:`~alexkit.images.batches.read_batches` takes :meth:`decoded`.
    With the preprocessing it was made with (see :meth:`differences`), ``train_square``
    gives the same pixels as from the originals to the bit; so does ``square`` where
    ``resize - crop`` is a multiple of 4 (torchvision's 256 and 224), because the centre of
    the centre is then rounded to the same place; for other crops it may lie a pixel beside.
    """

    def __init__(self, path: Path, tables: Tables) -> None:
        super().__init__(path, tables, f"{tables.side} × {tables.side} pixels")
        self._pixels = tables.mapped(path, PIXELS)

    def decoded(self, row: int) -> Decoded:
        """(S, S, 3) uint8, a read-only view of the file, and what was repaired.

        Raises:
            UnreadableImage: the row's image could not be decoded when the pack was made.
        """
        note = self._note_of_good(row)
        return Decoded(self._pixels[row], note)

    def plain(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """(n) whether a row has an image that was neither repaired nor converted."""
        return np.asarray((self.status[rows] == Status.DONE) & (self._notes[rows] == b""))

    def copy(self, rows: Rows, top: int, left: int, out_nhwc: Pixels) -> None:
        """The squares at ``top`` and ``left`` of ``rows``, of the size that ``out_nhwc`` has;
        what is in them is undefined for rows without an image."""
        side = out_nhwc.shape[1]
        if side == self.side:
            # "clip" as "raise" would copy twice; numpy lets the lock go for all of it.
            np.take(self._pixels, rows, axis=0, out=out_nhwc, mode="clip")
            return
        for square, row in zip(out_nhwc, rows.tolist(), strict=True):
            np.copyto(square, self._pixels[row, top : top + side, left : left + side])

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """(N) whether a row has an image."""
        return np.asarray(self.status == Status.DONE)

    def stored_pixels(self, first: int, last: int) -> Array:
        """(last - first, S, S, 3) uint8, or fewer at the end: a read-only view of the file."""
        return self._pixels[first:last]

    def read(self, row: int) -> bytes:
        """The pixels as a PPM file, which any decoder turns into the same pixels.

        Raises:
            UnreadableImage: as :meth:`decoded`.
        """
        return b"P6 %d %d 255\n" % (self.side, self.side) + self.decoded(row).rgb.tobytes()

    def _stored(self, first: int, last: int) -> Array:
        return self.stored_pixels(first, last)


class JpegPack(PackSource):
    """A pack of JPEG files of S × S pixels: small, quick to decode, and not exact.

    As for :class:`PixelPack`, its squares lie where those of the originals do; but their
    values are those that ``provenance["encoding"]`` left.
    """

    def __init__(self, path: Path, tables: Tables) -> None:
        encoding = tables.provenance["encoding"]
        super().__init__(
            path,
            tables,
            f"{tables.side} × {tables.side} pixels as {encoding['format']} of quality"
            f" {encoding['quality']}, {encoding['subsampling']}",
        )
        self._ends: npt.NDArray[np.int64] = tables.mapped(path, END)
        written = self._ends[self.status != Status.TODO]
        if written.size and (written[0] < 0 or (np.diff(written) < 0).any()):
            raise damaged(path, "was edited: an image ends before it begins")
        # In a pack in the making only the file itself says how long this is.
        self._jpeg = tables.mapped(path, JPEG, max([1, *written[-1:].tolist()]))

    def read(self, row: int) -> bytes:
        """The JPEG file of a row.

        Raises:
            UnreadableImage: the row's image could not be decoded when the pack was made.
        """
        self._note_of_good(row)
        return self._stored(row, row + 1).tobytes()

    def decoded(self, row: int) -> Decoded:
        """(S, S, 3) uint8, and what was repaired or converted before it was encoded.

        Raises:
            UnreadableImage: as :meth:`read`; or the bytes were damaged since.
        """
        note = self._note_of_good(row)
        image = decode(self.read(row), exif=False)
        return Decoded(image.rgb, ", ".join(filter(None, (note, image.remark))))

    def bytes_before(self, row: int) -> int:
        """Bytes of all JPEG files before that of ``row``."""
        return int(self._ends[row - 1]) if row else 0

    def _stored(self, first: int, last: int) -> Array:
        return self._jpeg[self.bytes_before(first) : self.bytes_before(last)]

    def _more_columns(self) -> tuple[Array, ...]:
        return (self._ends,)


def pack_of(path: Path, tables: Tables) -> PackSource:
    """The source for what :func:`~alexkit.images.pack.read_tables` found."""
    return JpegPack(path, tables) if tables.jpeg else PixelPack(path, tables)


def open_pack(path: Path, *, unfinished: bool = False) -> PackSource:
    """Opens a pack; reads only numbers a row, no images, so a million rows open at once.

    Args:
        path: the file.
        unfinished: accept a pack in the making.

    Raises:
        DataError: there is no such file, or it cannot be read.
        DamagedFile: truncated, edited, foreign, unfinished, or of another format version.
    """
    with reading(path):
        source = pack_of(path, read_tables(path))
    if not (source.complete or unfinished):
        raise DamagedFile(
            f"{path} is unfinished", hint="the command that began it continues it"
        )
    return source


def _text(stored: bytes) -> str:
    """Text of the file; bytes that are no UTF-8 are damage, which :meth:`verify` tells."""
    return stored.decode("utf-8", "backslashreplace")
