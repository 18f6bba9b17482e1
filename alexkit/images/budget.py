"""The disk space of a pack, before the first byte of it is written."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from alexkit.images.encode import JpegEncoding, read_encoded
from alexkit.images.hollow import HollowFile
from alexkit.images.pack import pack_bytes
from alexkit.images.packed import JpegPack, PackSource
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource

SAMPLE = 32
"""Images that are encoded to foretell the size of a pack of JPEGs."""


@dataclass(frozen=True)
class Budget:
    """The disk space of a pack; all in bytes.

    Attributes:
        whole: the images of the finished pack.
        rest: what is still to be written of the file.
        continues: whether some of it is there already.
        free: on the disk.
        place: the folder that was asked.
        measured: the images the size was taken from; 0 where it is known.
    """

    whole: int
    rest: int
    continues: bool
    free: int
    place: Path
    measured: int


def budget_of(
    place: Path,
    source: ImageSource,
    preprocess: Preprocess,
    encoding: JpegEncoding | None,
    begun: PackSource | HollowFile,
    threads: int,
) -> Budget:
    """What a pack takes on the disk of the folder ``place``.

    Args:
        encoding: None for a pack of pixels.
        begun: an interrupted pack, or the file that is about to be.
        threads: that encode some images, where nothing else tells what JPEG files take.
    """
    rows, done, taken = len(source), 0, 0
    if isinstance(begun, HollowFile):
        rest = begun.seek(0, os.SEEK_END)
    else:
        stat = begun.path.stat()
        # Holes are still to be written; JPEG files come after what is there.
        rest = max(0, stat.st_size - 512 * stat.st_blocks)
        done = begun.done
    whole, measured = pack_bytes(rows, preprocess.resize), 0
    if encoding is not None:
        if done and isinstance(begun, JpegPack):
            measured, taken = done, begun.bytes_before(done)
        else:
            some = np.unique(np.linspace(0, rows - 1, SAMPLE).round().astype(np.int64))
            for batch in read_encoded(
                source, some, preprocess, encoding, batch_size=SAMPLE, threads=threads
            ):
                measured, taken = len(batch.files), sum(map(len, batch.files))
        whole = rows * taken // measured
        rest += (rows - done) * taken // measured
    continues = isinstance(begun, PackSource)
    return Budget(whole, rest, continues, shutil.disk_usage(place).free, place, measured)
