"""A file over parts reads as one that holds its rows itself, or it is refused."""

from __future__ import annotations

import fcntl
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from alexkit.errors import DamagedFile, FileMismatch, OutputExists, UsageError
from alexkit.features.layout import Status
from alexkit.features.parts import (
    PartWriter,
    drop_parts,
    free_number,
    part_path,
    parts_beside,
    stretch_of_rank,
    take_in,
)
from alexkit.features.store import FeatureStore
from alexkit.features.virtual import unborn_path
from alexkit.features.virtual_writer import VirtualWriter
from tests.features.test_parts import COUNT, LAYERS, nothing, plan, values, whole

BAD = {7: (Status.UNREADABLE, "no image, but a ü"), 22: (Status.NON_FINITE, "fc7 holds nan")}


def fill(writer: PartWriter | VirtualWriter, rows: np.ndarray) -> None:
    for start in range(0, rows.size, 4):
        batch = rows[start : start + 4]
        good = np.array([row for row in batch if row not in BAD], np.int64)
        writer.append(good, values(good))
        for row in set(batch.tolist()) & set(BAD):
            writer.mark(row, *BAD[row])


def write(path: Path, ranks: int = 2, weights: str = "1234", overwrite: bool = False) -> Path:
    """By so many processes, one after the other, what is not done yet."""
    fixed = plan(weights)
    with VirtualWriter(path, fixed, overwrite=overwrite) as writer:
        writer.look(discard=overwrite, between=nothing)
        first, pending = free_number(path), writer.pending()
        for rank in range(ranks):
            mine = stretch_of_rank(pending, rank, ranks)
            if not mine.size:
                continue
            part = part_path(path, first + rank, first + ranks)
            if rank == 0:
                writer.begin(part, mine)
                fill(writer, mine)
            else:
                with PartWriter(part, fixed, mine) as other:
                    fill(other, mine)
        writer.look(between=nothing)
        assert writer.problems().keys() == BAD.keys()
        writer.finish({"ended": "2012-12-03T10:00:00"})
    return path


def check(path: Path, ranks: int = 2) -> None:
    """It reads as what one process would have written, by alexkit and by plain h5py."""
    good = np.setdiff1d(np.arange(COUNT), list(BAD))
    with FeatureStore.open(path) as store:
        assert store.complete
        assert store.sealed
        assert len(store.parts) == ranks
        assert store.rows().tolist() == good.tolist()
        assert store.reasons == {7: "no image, but a \\xfc", 22: "fc7 holds nan"}
        assert store.paths == tuple(f"class/ä{row}.jpg" for row in range(COUNT))
        assert store.provenance["ended"] == "2012-12-03T10:00:00"
        rows = good[::-3]
        for layer, expected in values(rows).items():
            np.testing.assert_array_equal(store.values(layer, rows), expected)
    with h5py.File(path) as file:
        for layer, expected in values(np.arange(COUNT)).items():
            expected[list(BAD)] = np.nan
            np.testing.assert_array_equal(file["features"][layer][:], expected)


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_a_file_over_parts_reads_as_one(tmp_path: Path, ranks: int) -> None:
    path = write(tmp_path / "50%b ä [x].h5", ranks)
    check(path, ranks)
    assert sorted(tmp_path.iterdir()) == sorted([path, *parts_beside(path, "")])
    held = sum(int(np.prod(shape)) for shape in LAYERS.values()) * 4 * COUNT
    assert sum(part.stat().st_size for part in parts_beside(path, "")) > held


def test_it_can_be_moved_linked_and_renamed_with_its_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here/F.h5")
    moved = (tmp_path / "here").rename(tmp_path / "there")
    (moved / "F.h5").rename(moved / "G.h5")
    check(moved / "G.h5")
    (tmp_path / "link.h5").symlink_to(moved / "G.h5")
    check(tmp_path / "link.h5")
    monkeypatch.chdir(moved)
    check(Path("G.h5"))


def _flip(part: Path) -> None:
    content = bytearray(part.read_bytes())
    at = content.index(b"alexkit/features")
    content[at] ^= 1
    part.write_bytes(content)


def _cut(part: Path) -> None:
    part.write_bytes(part.read_bytes()[:-3000])


def _replace(part: Path) -> None:
    """By the same part of a file of other weights."""
    other = write(part.parent / "other/F.h5", weights="5678")
    shutil.copy(other.with_name(part.name), part)


@pytest.mark.parametrize("harm", [Path.unlink, _flip, _cut, _replace])
def test_a_part_that_is_not_as_it_was_is_named(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = write(tmp_path / "F.h5")
    part = parts_beside(path, "")[1]
    harm(part)
    with pytest.raises(DamagedFile, match=r"its part F\.h5\.part-1-of-2 is") as caught:
        FeatureStore.open(path)
    assert "delete" in caught.value.hint
    # What the hint says helps, and the rows of the other part are not written again.
    part.unlink(missing_ok=True)
    path.unlink()
    with VirtualWriter(path, plan(), overwrite=False) as writer:
        writer.look(between=nothing)
        assert writer.pending().tolist() == list(range(15, 30))
    check(write(path), 3)


def test_others_read_what_is_gone_as_nan(tmp_path: Path) -> None:
    path = write(tmp_path / "F.h5")
    with FeatureStore.open(path) as store:
        parts_beside(path, "")[1].unlink()
        with pytest.raises(DamagedFile, match="is done but no numbers"):
            store.values("fc7", np.arange(15, 30))
    with h5py.File(path) as file:
        assert np.isnan(file["features/fc7"][15:]).all()


def test_a_part_in_use_and_another_place_of_parts_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "F.h5")
    part = parts_beside(path, "")[0]
    with part.open("r+b") as raw:
        fcntl.flock(raw, fcntl.LOCK_EX)  # as HDF5 does in a process that writes
        raw.seek(30)
        raw.write(b"\1")
        raw.flush()
        with pytest.raises(UsageError, match="part-0-of-2 is in use by another process"):
            FeatureStore.open(path)
        raw.seek(30)
        raw.write(b"\0")
    check(path)
    monkeypatch.setenv("HDF5_VDS_PREFIX", "/tmp")
    with pytest.raises(UsageError, match="HDF5_VDS_PREFIX"):
        FeatureStore.open(path)


def test_a_file_over_files_it_does_not_name_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "F.h5")
    with h5py.File(path, "r+") as file:
        shape = file["features/fc7"].shape
        del file["features/fc7"]
        layout = h5py.VirtualLayout(shape, "<f4")
        layout[:] = h5py.VirtualSource("/somewhere/else.h5", "x", shape, "<f4")
        file.create_virtual_dataset("features/fc7", layout)
    with pytest.raises(DamagedFile, match="not its parts"):
        FeatureStore.open(path)


def test_begun_one_way_it_is_continued_the_other_way_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "F.h5"
    with whole(path) as one:
        one.append(np.arange(3), values(np.arange(3)))
    with pytest.raises(FileMismatch, match="without --merge virtual"):
        VirtualWriter(path, plan(), overwrite=False)
    check(write(path, overwrite=True))
    # Killed after its parts were given their names, and continued as one file.
    path.unlink()
    with whole(path) as one:
        take_in(one, between=nothing)
        assert not one.pending().size
        one.finish({"ended": "2012-12-03T10:00:00"})
    check(path, 0)
    unborn_path(path).touch()
    drop_parts(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_finished_file_stays_until_the_new_one_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "F.h5")
    with pytest.raises(OutputExists):
        VirtualWriter(path, plan(), overwrite=False)
    old = parts_beside(path, "")
    with VirtualWriter(path, plan("5678"), overwrite=True) as writer:
        writer.look(discard=True, between=nothing)
        assert writer.pending().size == COUNT, "nothing of the old one counts"
        writer.begin(part_path(path, free_number(path), 3), np.arange(COUNT))
        fill(writer, np.arange(10))
        check(path)
    check(write(path, weights="5678", overwrite=True), 3)
    assert not set(old) & set(tmp_path.iterdir())


def test_a_part_with_other_settings_is_named(tmp_path: Path) -> None:
    path = tmp_path / "F.h5"
    with PartWriter(part_path(path, 1, 2), plan("5678"), np.arange(4)):
        pass
    with VirtualWriter(path, plan(), overwrite=False) as writer:
        with pytest.raises(FileMismatch, match=r"other settings: weights is '5678' there"):
            writer.look(between=nothing)
        writer.look(discard=True, between=nothing)
    assert not list(tmp_path.iterdir())


def test_killed_at_any_moment_it_goes_on(tmp_path: Path) -> None:
    path, rng = tmp_path / "F.h5", random.Random(5)
    started = time.monotonic()
    check(write(tmp_path / "timed/F.h5"))
    takes = time.monotonic() - started
    killed = 0
    while not path.exists():
        child = os.fork()
        if not child:
            try:
                write(path, 3)
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, takes * (1 + killed / 20)))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        killed += 1
    with FeatureStore.open(path) as store:
        check(path, len(store.parts))
    with pytest.raises(OutputExists):
        write(path)
