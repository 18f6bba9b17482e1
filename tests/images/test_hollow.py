"""The file in memory that keeps only what was written."""

from __future__ import annotations

import io
import random
import tracemalloc
from pathlib import Path

import numpy as np

from alexkit.choices import FeatureDtype
from alexkit.features.layout import Plan, RowTable, write_skeleton
from alexkit.images.hollow import HollowFile


def test_behaves_like_any_file(tmp_path: Path) -> None:
    chance = random.Random(0)
    hollow, plain = HollowFile(), io.BytesIO()
    for _ in range(300):
        place, length = chance.randrange(50_000), chance.randrange(10_000)
        data = chance.randbytes(length)
        for file in (hollow, plain):
            file.seek(place)
            assert file.write(data) == length
            assert file.tell() == place + length
        place = chance.randrange(80_000)
        for whence in (io.SEEK_SET, io.SEEK_END):
            offset = place if whence == io.SEEK_SET else -min(place, 100)
            assert hollow.seek(offset, whence) == plain.seek(offset, whence)
            assert hollow.read(length) == plain.read(length)
    with open(tmp_path / "poured", "wb") as raw:
        hollow.pour(raw)
    assert (tmp_path / "poured").read_bytes() == plain.getvalue()


def test_what_was_not_written_takes_no_memory_and_reads_as_zeros(tmp_path: Path) -> None:
    hollow = HollowFile()
    hollow.seek(10**12)
    hollow.write(b"end")
    hollow.truncate(2 * 10**12)
    hollow.seek(10**12 - 2)
    assert hollow.read(8) == b"\0\0end\0\0\0"
    assert hollow.seek(0, io.SEEK_END) == 2 * 10**12
    assert hollow.read(1) == b""


def test_differences_are_pages_and_bytes() -> None:
    one, other = HollowFile(), HollowFile()
    for file, data in ((one, b"abc"), (other, b"axc")):
        for place in (5, 9000):
            file.seek(place)
            file.write(b"same" if place == 5 else data)
    one.seek(10**10)
    one.write(b"z")
    (at, which, values), (last, _, _) = one.differences(other)
    assert (at, np.flatnonzero(which).tolist()) == (8192, [9001 - 8192])
    assert values[9000 - 8192 : 9003 - 8192].tobytes() == b"abc"
    assert last == 10**10 // 4096 * 4096


def test_a_skeleton_is_made_in_little_memory(tmp_path: Path) -> None:
    plan = Plan(
        rows=RowTable(("a.jpg", "b.jpg"), np.zeros(2, np.int32), np.zeros(2, np.uint8)),
        classes=("a",),
        layers={"fc7": (6_000_000,)},
        dtype=FeatureDtype.FLOAT32,
        provenance={},
    )
    tracemalloc.start()
    write_skeleton(tmp_path / "features.h5", plan)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "features.h5.partial").stat().st_size > plan.nbytes == 48_000_000
    assert peak < 12_000_000
