"""The index of a tar: every dialect, damage, and what is remembered."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from alexkit.errors import DataError
from alexkit.events import Event, StageFinished, StageStarted, silent
from alexkit.images.indexes import LEFT_SECONDS
from alexkit.images.tars import TarIndex, index_tar
from tests.images.archives import tar_bytes

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "x.tar"


def contents(archive: Path, index: TarIndex) -> dict[str, bytes]:
    data = archive.read_bytes()
    return {
        os.fsdecode(index.path(row)): data[offset : offset + size]
        for row, (offset, size) in enumerate(
            zip(index.offsets.tolist(), index.sizes.tolist(), strict=True)
        )
    }


@pytest.mark.parametrize(
    "dialect", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_every_dialect_is_read_as_tarfile_reads_it(archive: Path, dialect: int) -> None:
    deep = "/".join(["folder" * 4] * 6)  # needs ustar's prefix, a GNU long name or pax
    files = {"b.jpg": b"b" * 513, f"{deep}/a.jpg": b"a", "empty.jpg": b"", "./c.cls": b"7"}
    if dialect != tarfile.USTAR_FORMAT:
        files["x" * 300 + ".jpg"] = b"long"
        files["naïve é.jpg"] = b"accent"
    archive.write_bytes(tar_bytes(files, dialect))
    index = index_tar(archive, silent)
    expected = {name.removeprefix("./"): data for name, data in files.items()}
    assert contents(archive, index) == expected
    paths = [index.path(row) for row in range(len(index))]
    assert paths == sorted(paths)
    suffixes = index.suffix_names()
    assert [suffixes[code] for code in index.suffix] == [
        os.path.basename(path).partition(b".")[2].decode() for path in paths
    ]
    assert index.notes("x.tar") == []


def test_archives_inside_are_looked_into(tmp_path: Path) -> None:
    inner = tar_bytes({"n1_2.jpg": b"two", "n1_1.jpg": b"one"})
    archive = tmp_path / "outer.tar"
    archive.write_bytes(tar_bytes({"n2.tar": tar_bytes({}), "n1.tar": inner, "z.jpg": b"z"}))
    index = index_tar(archive, silent)
    assert contents(archive, index) == {
        "n1/n1_1.jpg": b"one",
        "n1/n1_2.jpg": b"two",
        "z.jpg": b"z",
    }
    assert index.nested.tolist() == [2]
    names = index.folder_names()
    assert [names[code] for code in index.folder] == ["n1", "n1", ""]


def test_what_must_not_be_a_path_is_left_out_and_told(archive: Path) -> None:
    files = {"../up.jpg": b"1", "/etc/abs.jpg": b"2", "a/../../b.jpg": b"3", "ok.jpg": b"4"}
    files |= {"._ok.jpg": b"5", "__MACOSX/ok.jpg": b"6", "a/.hidden/x.jpg": b"7"}
    with tarfile.open(archive, "w") as tar:
        link = tarfile.TarInfo("link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    # tarfile's own end mark is cut off; what follows is a whole archive.
    archive.write_bytes(archive.read_bytes()[:1024] + tar_bytes(files))
    index = index_tar(archive, silent)
    assert list(contents(archive, index)) == ["ok.jpg"]
    told = "\n".join(index.notes("x.tar"))
    assert "3 files in x.tar left out: their paths lead outside" in told
    assert "3 hidden files" in told
    assert "1 links or devices" in told


def test_a_path_ends_at_a_zero_byte(archive: Path) -> None:
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in ("a/1.jpg\0/2.png", "b/3.jpg"):
            member = tarfile.TarInfo("short")
            member.pax_headers = {"path": path}
            tar.addfile(member)
    index = index_tar(archive, silent)
    assert list(contents(archive, index)) == ["a/1.jpg", "b/3.jpg"]
    assert [index.folder_names()[code] for code in index.folder] == ["a", "b"]
    assert index.suffix_names() == ["jpg"]


def test_a_file_of_many_gigabytes_in_binary(archive: Path) -> None:
    """GNU's base-256 size; the file is sparse, so this costs no disk."""
    size = 9 << 30
    member = tarfile.TarInfo("big.bin")
    member.size = size
    with open(archive, "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        file.seek(512 + size)
        file.write(tar_bytes({"small.jpg": b"s"}))
    index = index_tar(archive, silent)
    assert index.sizes.tolist() == [size, 1]
    assert index.offsets.tolist() == [512, 512 + size + 512]


def test_an_archive_inside_that_reaches_beyond_its_end(archive: Path) -> None:
    inner = tar_bytes({"a.jpg": b"a" * 3000})[:2048]
    archive.write_bytes(tar_bytes({"n1.tar": inner, "n2.tar": tar_bytes({})}))
    with pytest.raises(DataError, match="truncated"):
        index_tar(archive, silent)


def test_a_missing_end_mark_is_told(archive: Path) -> None:
    archive.write_bytes(tar_bytes({"a.jpg": b"a"})[:1024])
    index = index_tar(archive, silent)
    assert len(index) == 1
    assert index.notes("x.tar") == ["x.tar has no end mark: it may be truncated"]


TWO = tar_bytes({"a.jpg": b"a" * 300, "b.jpg": b"b" * 300})


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        *[(TWO[:length], "truncated", "") for length in (612, 1124, 1636)],
        (TWO[:1024] + bytes([TWO[1024] ^ 1]) + TWO[1025:], "damaged", ""),
        (b"\x1f\x8b\x08" + bytes(600), "is compressed", "gunzip"),
        (b"not a tar at all, " * 60, "is no tar archive", "as it was downloaded"),
        (tar_bytes({"a": b"x"})[:1024] + b"?" * 1024, "no tar header at byte 1,024", "again"),
    ],
)
def test_what_is_no_tar(archive: Path, data: bytes, message: str, hint: str) -> None:
    archive.write_bytes(data)
    with pytest.raises(DataError, match=message) as caught:
        index_tar(archive, silent)
    assert hint in caught.value.hint
    assert caught.value.exit_status == 3


def test_no_cut_and_no_flipped_bit_goes_unseen_or_crashes(archive: Path) -> None:
    files = {"n1.tar": tar_bytes({"a.jpg": b"a" * 700}), "x" * 120: b"long", "b.jpg": b"b"}
    whole = tar_bytes(files, tarfile.GNU_FORMAT)
    last = len(whole.rstrip(b"\0"))
    for cut in range(0, last, 37):
        archive.write_bytes(whole[:cut])
        with contextlib.suppress(DataError):
            assert index_tar(archive, silent).left_out[3] == 1, cut
    rng = np.random.default_rng(0)
    for at in rng.integers(0, last, 300).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        archive.write_bytes(damaged)
        with contextlib.suppress(DataError):
            index = index_tar(archive, silent)
            assert index.offsets.max() + index.sizes.max() <= len(whole)


def reads_again(archive: Path) -> bool:
    events: list[Event] = []
    index_tar(archive, events.append)
    assert len(events) in (0, 2)
    assert [type(event) for event in events] in ([], [StageStarted, StageFinished])
    return bool(events)


def test_the_index_is_remembered_until_the_archive_changes(
    archive: Path, tmp_path: Path
) -> None:
    archive.write_bytes(tar_bytes({"a.jpg": b"a"}))
    first = index_tar(archive, silent)
    assert not reads_again(archive)
    second = index_tar(archive, silent)
    for name in [column.name for column in fields(TarIndex)]:
        assert np.array_equal(getattr(first, name), getattr(second, name)), name
        assert getattr(first, name).dtype == getattr(second, name).dtype, name
    status = archive.stat()
    kept = tmp_path / ".x.tar.alexkit-index"
    assert kept.stat().st_mode & 0o777 == status.st_mode & 0o666  # for whom the archive is
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert reads_again(archive)
    archive.write_bytes(tar_bytes({"a.jpg": b"a", "b.jpg": b"b"}) + bytes(512))
    os.utime(archive, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert reads_again(archive)  # the same time, another size
    assert len(index_tar(archive, silent)) == 2


def test_what_a_killed_process_left_of_an_index_goes_away(tmp_path: Path) -> None:
    archive = tmp_path / "x[1].tar"
    archive.write_bytes(tar_bytes({"a.jpg": b"a"}))
    endings = (".alexkit-index.old", ".alexkit-index.new", ".old")
    left, fresh, other = (tmp_path / f".x[1].tar{ending}" for ending in endings)
    for file, age in ((left, 2 * LEFT_SECONDS), (fresh, 0), (other, 2 * LEFT_SECONDS)):
        file.write_bytes(b"half")
        os.utime(file, (time.time() - age,) * 2)
    assert reads_again(archive)
    kept = [".x[1].tar.alexkit-index", fresh.name, other.name, archive.name]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)


@pytest.mark.parametrize("damage", ["truncate", "flip", "method", "empty", "foreign"])
def test_a_damaged_index_is_made_again(archive: Path, tmp_path: Path, damage: str) -> None:
    archive.write_bytes(tar_bytes({f"{i}.jpg": b"x" * i for i in range(50)}))
    good = contents(archive, index_tar(archive, silent))
    kept = tmp_path / ".x.tar.alexkit-index"
    data = bytearray(kept.read_bytes())
    if damage == "flip":
        data[data.index(b"offsets") + 300] ^= 0xFF
    if damage == "method":  # of compression, in zip's own directory
        data[data.index(b"PK\1\2") + 10] = 99
    parts = {"truncate": data[:-50], "empty": b"", "foreign": b"hello" * 50}
    kept.write_bytes(bytes(parts.get(damage, data)))
    assert reads_again(archive)
    assert contents(archive, index_tar(archive, silent)) == good
    assert not reads_again(archive)


def test_a_folder_that_cannot_be_written(tmp_path: Path, cache: Path) -> None:
    """Read-only for real: a file stands where the hidden one would go."""
    archive = tmp_path / "data" / "x.tar"
    archive.parent.mkdir()
    archive.write_bytes(tar_bytes({"a.jpg": b"a"}))
    (archive.parent / ".x.tar.alexkit-index").mkdir()
    assert reads_again(archive)
    assert len(list(cache.iterdir())) == 1
    assert not reads_again(archive)
    assert sorted(os.listdir(archive.parent)) == [".x.tar.alexkit-index", "x.tar"]
    shutil.rmtree(cache)
    cache.write_text("a file where the folder would be")
    assert reads_again(archive)
    assert reads_again(archive)
