"""Packs: the pixels and rows of the originals, readable by anyone, and honest when damaged."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from alexkit.errors import (
    DamagedFile,
    DataError,
    FileMismatch,
    OutOfSpace,
    OutputExists,
    UnreadableImage,
    UsageError,
)
from alexkit.images.batches import Batch, ReadyPixels, read_batches
from alexkit.images.decode import decode
from alexkit.images.opening import open_source
from alexkit.images.pack import (
    BLOCK_ROWS,
    LABEL,
    NOTE,
    PATH,
    SPLIT,
    STATUS,
    Status,
    is_pack,
    pack_bytes,
    partial_path,
    read_tables,
)
from alexkit.images.packed import PackSource, open_pack
from alexkit.images.packing import PackWriter, begin_pack
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import SPLITS, ImageSource

SMALL = Preprocess(resize=20, crop=16)
COUNT = 2 * BLOCK_ROWS + 10
BAD = (3, BLOCK_ROWS, COUNT - 1)
ALPHA = 9
PROVENANCE = {"source": {"root": "/photos", "fingerprint": "77"}, "versions": {"numpy": "2"}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """Three blocks of rows of odd sizes in two classes and three splits; three are bad."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = []
    for row in range(COUNT):
        alpha = row == ALPHA
        pixels = rng.integers(0, 256, (24 + row % 17, 47 - row % 29, 3 + alpha), np.uint8)
        name = f"größer {row:03}.png"
        Image.fromarray(pixels).save(folder / name)
        if row in BAD:
            (folder / name).write_bytes(b"<html>")
        lines.append(f"{name},{('Käfer', 'dog', '')[row % 3]},{('train', 'val', '')[row % 3]}")
    (folder / "list.csv").write_text("\n".join(lines))
    return open_source(folder / "list.csv")


def blocks(source: ImageSource, first: int = 0, preprocess: Preprocess = SMALL) -> list[Batch]:
    return list(
        read_batches(
            source,
            np.arange(first, len(source)),
            preprocess.train_square,
            batch_size=BLOCK_ROWS,
            threads=0,
            exif=preprocess.exif,
        )
    )


def begun(path: Path, source: ImageSource, **changes: object) -> PackWriter:
    given = {"preprocess": SMALL, "provenance": PROVENANCE, **changes}
    return begin_pack(path, source, **given)  # type: ignore[arg-type]


def packed(path: Path, source: ImageSource, preprocess: Preprocess = SMALL) -> PackSource:
    with begun(path, source, preprocess=preprocess) as writer:
        done = 0
        for batch in blocks(source, preprocess=preprocess):
            done = writer.append(done, batch)
        writer.finish()
    return open_pack(path)


@pytest.fixture(scope="module")
def pack(photos: ImageSource, tmp_path_factory: pytest.TempPathFactory) -> PackSource:
    return packed(tmp_path_factory.mktemp("packs") / "x.pack", photos)


class TestReading:
    def test_it_is_a_source_with_the_rows_of_the_original(
        self, pack: PackSource, photos: ImageSource
    ) -> None:
        opened = open_source(pack.path)
        assert isinstance(opened, PackSource)
        assert isinstance(opened, ReadyPixels)
        assert len(pack) == len(photos)
        assert pack.classes == photos.classes == ("Käfer", "dog")
        np.testing.assert_array_equal(pack.labels, photos.labels)
        np.testing.assert_array_equal(pack.splits, photos.splits)
        assert pack.labels.dtype == np.int32
        for row in range(len(pack)):
            assert pack.record(row) == photos.record(row)
        assert pack.root == str(pack.path)
        assert "20 × 20 pixels" in pack.notes[0]

    @pytest.mark.parametrize("threads", [0, 1, 4])
    @pytest.mark.parametrize("square", ["train_square", "square"])
    def test_batches_equal_those_of_the_originals(
        self, pack: PackSource, photos: ImageSource, square: str, threads: int
    ) -> None:
        rows = np.random.default_rng(1).permutation(COUNT)
        both = [
            list(
                read_batches(
                    source, rows, getattr(SMALL, square), batch_size=50, threads=t, exif=False
                )
            )
            for source, t in ((photos, 0), (pack, threads))
        ]
        for a, b in zip(*both, strict=True):
            np.testing.assert_array_equal(a.rows, b.rows)
            assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.labels, b.labels)
            assert (a.bad, a.remarks) == (b.bad, b.remarks)
        assert sum(len(batch.bad) for batch in both[1]) == len(BAD)
        assert sum(len(batch.remarks) for batch in both[1]) == 1

    def test_rows_as_encoded_bytes_hold_the_same_pixels(self, pack: PackSource) -> None:
        for row in (0, ALPHA, COUNT - 2):
            np.testing.assert_array_equal(
                decode(pack.read(row), exif=False).rgb, pack.pixels(row).rgb
            )
        with pytest.raises(UnreadableImage, match="HTML"):
            pack.read(BAD[0])

    def test_notes_say_what_is_odd(self, pack: PackSource) -> None:
        html = "not an image but an HTML page"
        assert pack.noted() == dict.fromkeys(BAD, html) | {ALPHA: "alpha on white"}
        assert np.flatnonzero(pack.status == Status.UNREADABLE).tolist() == list(BAD)

    def test_any_hdf5_reader_can_use_it(self, pack: PackSource, photos: ImageSource) -> None:
        with h5py.File(pack.path, "r") as file:
            assert file.attrs["format"] == "alexkit/pack"
            assert file["pixels"].shape == (COUNT, 20, 20, 3)
            assert file["pixels"].dtype == np.uint8
            assert file["pixels"].chunks is None
            assert file["rows/path"].asstr()[5] == photos.record(5).path
            words = file["rows/split"].asstr()[:]
            assert words.tolist() == [SPLITS[code].value for code in photos.splits]
            assert file["classes"].asstr()[:].tolist() == ["Käfer", "dog"]
            expected = SMALL.train_square(decode(photos.read(0), exif=False).rgb)
            np.testing.assert_array_equal(file["pixels"][0], expected)
            assert json.loads(file.attrs["provenance"])["source"] == PROVENANCE["source"]

    def test_a_pack_of_a_pack_holds_the_same_pixels(
        self, pack: PackSource, tmp_path: Path
    ) -> None:
        again = packed(tmp_path / "again.pack", pack)
        np.testing.assert_array_equal(again._pixels, pack._pixels)
        assert again.noted() == pack.noted()


def test_the_centre_of_the_centre_is_the_centre() -> None:
    """``square`` from a pack is exact where resize - crop is a multiple of 4, as documented,
    and elsewhere off by a pixel at most."""
    rng = np.random.default_rng(0)
    for crop, exact in ((224, True), (28, True), (227, False), (30, False)):
        resize = 256 if crop > 100 else 32
        preprocess, equal, near = Preprocess(resize=resize, crop=crop), True, True
        for longer in range(resize, resize + 9):
            for shape in ((resize, longer, 3), (longer, resize, 3)):
                rgb = rng.integers(0, 256, shape, np.uint8)
                direct = preprocess.square(rgb)
                twice = preprocess.square(preprocess.train_square(rgb))
                equal &= bool((direct == twice).all())
                axis = int(shape[0] > shape[1]) ^ 1
                near &= any(
                    (direct == np.roll(twice, n, axis)).mean() > 0.9 for n in (-1, 0, 1)
                )
        assert equal is exact, crop
        assert near


def test_differences_are_named(pack: PackSource) -> None:
    assert pack.differences(SMALL) == ()
    assert pack.differences(Preprocess(resize=20, crop=12, mean=(0.0, 0.0, 0.0))) == ()
    told = pack.differences(Preprocess(resize=24, crop=16, mode="squash", exif=True))
    assert told == ("resize 20, not 24", "mode 'short', not 'squash'", "exif False, not True")


def test_fingerprint_is_of_the_content(
    pack: PackSource, photos: ImageSource, tmp_path: Path
) -> None:
    assert packed(tmp_path / "same.pack", photos).fingerprint() == pack.fingerprint()
    other = packed(tmp_path / "other.pack", photos, Preprocess(resize=21, crop=16))
    assert other.fingerprint() != pack.fingerprint()


class TestDamage:
    @pytest.fixture
    def copy(self, pack: PackSource, tmp_path: Path) -> Path:
        path = tmp_path / "copy.pack"
        path.write_bytes(pack.path.read_bytes())
        return path

    def wrong(self, path: Path) -> list[str]:
        return [what for what, _, right in open_pack(path).verify() if not right]

    def test_a_whole_pack_verifies(self, copy: Path) -> None:
        assert self.wrong(copy) == []
        assert [done for _, done, _ in open_pack(copy).verify()][-1] == COUNT

    @pytest.mark.parametrize(
        ("dataset", "entry", "value", "said"),
        [
            ("pixels", (0, 3, 3, 1), None, "rows 0 to 63"),
            ("pixels", (COUNT - 2, 0, 0, 0), None, "rows 128 to 137"),
            ("rows/label", 3, 1, "the tables"),
            ("rows/split", 0, b"test", "the tables"),
            ("rows/path", 2, b"else.png", "the tables"),
            ("rows/note", ALPHA, b"nothing", "the tables"),
            ("rows/status", BAD[0], 1, "the tables"),
            ("classes", 0, "Ameise", "the tables"),
        ],
    )
    def test_verify_finds_one_changed_value(
        self, copy: Path, dataset: str, entry: object, value: object, said: str
    ) -> None:
        with h5py.File(copy, "r+") as file:
            given = 255 - file[dataset][entry] if value is None else value
            file[dataset][entry] = given
        assert self.wrong(copy) == [said]

    @pytest.mark.parametrize("kept", [0, 100, 5000, -1])
    def test_truncated(self, copy: Path, kept: int) -> None:
        whole = copy.read_bytes()
        copy.write_bytes(whole[:kept])
        with pytest.raises(DamagedFile, match=r"copy\.pack"):
            open_pack(copy)
        assert kept == -1 or not is_pack(copy)

    def test_wrong_bytes_in_the_tables_are_never_a_bug(
        self, copy: Path, pack: PackSource
    ) -> None:
        whole, rng = pack.path.read_bytes(), np.random.default_rng(0)
        places = read_tables(pack.path).places
        names = [PATH, LABEL, SPLIT, STATUS, NOTE]
        refused = 0
        for turn in range(200):
            offset, dtype, (count,) = places[names[turn % len(names)]]
            data = bytearray(whole)
            data[offset + rng.integers(dtype.itemsize * count)] ^= 0xFF
            copy.write_bytes(data)
            try:
                found = open_pack(copy)
                [found.record(row) for row in range(len(found))]
                found.noted()
            except DamagedFile:
                refused += 1
            else:
                assert self.wrong(copy) == ["the tables"]
        assert refused > 80

    def test_foreign_files(self, copy: Path, tmp_path: Path) -> None:
        assert is_pack(copy)
        with h5py.File(copy, "r+") as file:
            file.attrs["format_version"] = 2
        with pytest.raises(DamagedFile, match="version 2"):
            open_pack(copy)
        with h5py.File(copy, "w") as file:
            file["x"] = 1
        with pytest.raises(DamagedFile, match="no pack"):
            open_pack(copy)
        assert not is_pack(copy)
        with pytest.raises(DataError, match="No such file"):
            open_pack(tmp_path / "nothing.pack")

    @pytest.mark.parametrize(
        ("name", "entry", "value"), [("rows/label", 0, 7), ("rows/split", 0, b"dev")]
    )
    def test_nonsense_is_refused(
        self, copy: Path, name: str, entry: int, value: object
    ) -> None:
        with h5py.File(copy, "r+") as file:
            file[name][entry] = value
        with pytest.raises(DamagedFile, match="edited"):
            open_pack(copy)


class TestWriting:
    def test_stopped_between_blocks_it_goes_on_to_the_same_bytes(
        self, photos: ImageSource, pack: PackSource, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.pack"
        for done in (0, 64, 128, COUNT):
            with begun(path, photos) as writer:
                assert writer.done == done
                assert sorted(writer.unreadable()) == [row for row in BAD if row < done]
                if done < COUNT:
                    assert writer.append(done, blocks(photos, done)[0]) > done
                else:
                    writer.finish()
            assert path.exists() is (done == COUNT)
        assert path.read_bytes() == pack.path.read_bytes()
        assert list(tmp_path.iterdir()) == [path]

    def test_a_block_without_its_statuses_is_written_again(
        self, photos: ImageSource, pack: PackSource, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.pack"
        with begun(path, photos) as writer:
            writer.append(0, blocks(photos)[0])
        with h5py.File(partial_path(path), "r+") as file:
            file["rows/status"][10:] = 0
            file["pixels"][20] = 99
        with begun(path, photos) as writer:
            assert writer.done == 0
            for first, batch in zip(range(0, COUNT, BLOCK_ROWS), blocks(photos), strict=True):
                writer.append(first, batch)
            writer.finish()
        assert path.read_bytes() == pack.path.read_bytes()

    def test_what_is_unfinished_does_not_pretend(
        self, photos: ImageSource, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.pack"
        with begun(path, photos) as writer:
            writer.append(0, blocks(photos)[0])
        os.rename(partial_path(path), path)
        with pytest.raises(DamagedFile, match="not complete"):
            open_source(path)
        assert not open_pack(path, unfinished=True).complete
        with pytest.raises(UnreadableImage, match="not packed"):
            open_pack(path, unfinished=True).pixels(COUNT - 2)

    def test_other_settings_are_refused_by_name(
        self, photos: ImageSource, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.pack"
        begun(path, photos).__exit__()
        with pytest.raises(FileMismatch, match="another preprocessing"):
            begun(path, photos, preprocess=Preprocess(resize=21, crop=16))
        with pytest.raises(FileMismatch, match="another source"):
            begun(path, photos, provenance={**PROVENANCE, "source": {}})
        begun(path, photos, provenance={**PROVENANCE, "source": {}}, overwrite=True).__exit__()

    def test_a_finished_pack_is_not_replaced_unasked(
        self, photos: ImageSource, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.pack"
        packed(path, photos)
        with pytest.raises(OutputExists):
            begun(path, photos)
        with begun(path, photos, overwrite=True):
            assert open_pack(path).complete  # until the new one is
        with pytest.raises(UsageError, match="folder"):
            begun(tmp_path, photos)

    def test_two_writers_are_refused(self, photos: ImageSource, tmp_path: Path) -> None:
        path = tmp_path / "x.pack"
        with begun(path, photos):
            for overwrite in (False, True):
                with pytest.raises(UsageError, match="another process"):
                    begun(path, photos, overwrite=overwrite)
            other = Preprocess(resize=21, crop=16)
            with pytest.raises(UsageError, match="another process"):
                begun(path, photos, preprocess=other, overwrite=True)
        begun(path, photos).__exit__()

    def test_a_damaged_partial_is_told(self, photos: ImageSource, tmp_path: Path) -> None:
        path = tmp_path / "x.pack"
        partial_path(path).write_bytes(b"no pack")
        with pytest.raises(DamagedFile) as caught:
            begun(path, photos)
        assert "--overwrite" in caught.value.hint
        begun(path, photos, overwrite=True).__exit__()


class TestDisk:
    def test_too_small_is_said_before_the_first_byte(
        self, photos: ImageSource, small_disk: Path
    ) -> None:
        large = Preprocess(resize=100, crop=96)
        assert pack_bytes(COUNT, 100) > 2 << 20
        with pytest.raises(OutOfSpace, match="needs"):
            begun(small_disk / "x.pack", photos, preprocess=large)
        assert list(small_disk.iterdir()) == []

    def test_filled_while_packing(
        self, photos: ImageSource, pack: PackSource, small_disk: Path
    ) -> None:
        path, ballast = small_disk / "x.pack", small_disk / "ballast"
        with begun(path, photos) as writer:
            writer.append(0, blocks(photos)[0])
            with suppress(OSError), ballast.open("wb", 0) as file:
                while True:
                    file.write(bytes(4096))
            with pytest.raises(OutOfSpace, match="No space"):
                writer.append(64, blocks(photos, 64)[0])
        assert not path.exists()
        assert not open_pack(partial_path(path), unfinished=True).complete
        ballast.unlink()
        with begun(path, photos) as writer:
            assert writer.done == 64
            for first, batch in zip((64, 128), blocks(photos, 64), strict=True):
                writer.append(first, batch)
            writer.finish()
        assert path.read_bytes() == pack.path.read_bytes()
