"""Archives as they are downloaded, made small: for the tests of what reads them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from alexkit.images.source import SPLITS, ImageSource


def tiny_jpeg(seed: int) -> bytes:
    """An 8 x 8 JPEG, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def tar_bytes(files: Mapping[str, bytes], dialect: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar of these files, in this order."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=dialect) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpack(root: Path, files: Mapping[str, bytes]) -> Path:
    """The same files as files."""
    for name, data in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return root


def table(source: ImageSource) -> list[tuple[str, str, str]]:
    """(path, class name, split) of every row, in order."""
    records = [source.record(row) for row in range(len(source))]
    assert [r.label for r in records] == source.labels.tolist()
    assert [SPLITS.index(r.split) for r in records] == source.splits.tolist()
    return [
        (r.path, source.classes[r.label] if r.label >= 0 else "", r.split.value)
        for r in records
    ]


def notes(source: ImageSource) -> str:
    return "\n".join(source.notes)
