"""Packs: the pixels and rows of the originals, readable by anyone, and honest when damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
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
from alexkit.images.batches import Batch, OwnDecoder, ReadyPixels, read_batches
from alexkit.images.budget import Budget
from alexkit.images.decode import decode
from alexkit.images.encode import EncodedBatch, JpegEncoding, encode_jpeg, read_encoded
from alexkit.images.opening import open_source
from alexkit.images.pack import (
    BLOCK_ROWS,
    END,
    LABEL,
    LEAST_JPEG,
    NOTE,
    PATH,
    SPLIT,
    STATUS,
    Status,
    is_pack,
    jpeg_length,
    read_tables,
)
from alexkit.images.packed import JpegPack, PackSource, PixelPack, open_pack
from alexkit.images.packing import PackWriter, begin_pack
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import SPLITS, ImageSource
from alexkit.whole_file import partial_path
from tests.conftest import textured_rgb

SMALL = Preprocess(resize=20, crop=16)
COUNT = 2 * BLOCK_ROWS + 10
BAD = (3, BLOCK_ROWS, COUNT - 1)
ALPHA = 9
KINDS = {"pixels": None, "jpeg": JpegEncoding()}
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


@pytest.fixture(scope="module", params=KINDS)
def encoding(request: pytest.FixtureRequest) -> JpegEncoding | None:
    """Of both kinds of pack; None is pixels."""
    return KINDS[request.param]


class Packing:
    """Images on their way into a pack; ``encoding`` None is pixels."""

    def __init__(
        self,
        path: Path,
        source: ImageSource,
        encoding: JpegEncoding | None,
        preprocess: Preprocess = SMALL,
    ) -> None:
        self.path, self.source = path, source
        self.given = {"preprocess": preprocess, "provenance": PROVENANCE, "encoding": encoding}

    def begin(self, **changes: object) -> PackWriter:
        return begin_pack(self.path, self.source, **self.given | changes)  # type: ignore[arg-type]

    def blocks(self, first: int = 0) -> list[Batch] | list[EncodedBatch]:
        rows = np.arange(first, len(self.source))
        how, encoding = self.given["preprocess"], self.given["encoding"]
        options = {"batch_size": BLOCK_ROWS, "threads": 2}
        if encoding is not None:
            return list(read_encoded(self.source, rows, how, encoding, **options))
        return list(read_batches(self.source, rows, how.train_square, exif=how.exif, **options))

    def fill(self, writer: PackWriter) -> None:
        for batch in self.blocks(writer.done):
            writer.append(writer.done, batch)

    def pack(self) -> PackSource:
        with self.begin() as writer:
            self.fill(writer)
            writer.finish()
        return open_pack(self.path)


@pytest.fixture
def packing(photos: ImageSource, encoding: JpegEncoding | None, tmp_path: Path) -> Packing:
    """Of the photos into an empty folder."""
    return Packing(tmp_path / "x.pack", photos, encoding)


def packed_end(path: Path, row: int) -> int:
    with h5py.File(path, "r") as file:
        return int(file["rows/end"][row])


def pixels_of(pack: PackSource, row: int) -> np.ndarray:
    return decode(pack.read(row), exif=False).rgb


@pytest.fixture(scope="module")
def pack(
    photos: ImageSource, encoding: JpegEncoding | None, tmp_path_factory: pytest.TempPathFactory
) -> PackSource:
    return Packing(tmp_path_factory.mktemp("packs") / "x.pack", photos, encoding).pack()


LARGE = Preprocess(resize=300, crop=268)


@pytest.mark.parametrize(
    "square",
    [
        LARGE.train_square,
        LARGE.square,
        lambda rgb: LARGE.train_square(rgb)[:, ::-1],
        lambda rgb: LARGE.train_square(rgb)[::2, ::2],
    ],
    ids=["whole", "centre", "mirrored", "smaller"],
)
def test_of_ready_pixels_no_more_than_a_cut_is_taken_for_one(
    photos: ImageSource, tmp_path: Path, square: Callable[[np.ndarray], np.ndarray]
) -> None:
    pack = Packing(tmp_path / "large.pack", photos, None, LARGE).pack()
    rows = np.flatnonzero(pack.status == Status.DONE)[::9]
    (batch,) = read_batches(pack, rows, square, batch_size=len(rows), threads=1, exif=False)
    expected = np.stack([square(pixels_of(pack, int(row))) for row in rows])
    np.testing.assert_array_equal(batch.pixels.numpy(), expected)


class TestReading:
    def test_it_is_a_source_with_the_rows_of_the_original(
        self, pack: PackSource, photos: ImageSource
    ) -> None:
        opened = open_source(pack.path)
        assert isinstance(opened, PixelPack | JpegPack)
        assert isinstance(opened, OwnDecoder)
        assert isinstance(opened, ReadyPixels) is isinstance(opened, PixelPack)
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
            if isinstance(pack, JpegPack):
                # Of noise, which is the worst there is.
                assert (a.pixels.float() - b.pixels).abs().mean() < 9
            else:
                assert torch.equal(a.pixels, b.pixels)
            assert torch.equal(a.labels, b.labels)
            assert (a.bad, a.remarks) == (b.bad, b.remarks)
        assert sum(len(batch.bad) for batch in both[1]) == len(BAD)
        assert sum(len(batch.remarks) for batch in both[1]) == 1

    def test_rows_as_encoded_bytes_hold_the_pixels(
        self, pack: PackSource, photos: ImageSource
    ) -> None:
        for row in (0, ALPHA, COUNT - 2):
            square = SMALL.train_square(decode(photos.read(row), exif=False).rgb)
            if isinstance(pack, JpegPack):
                assert pack.read(row) == encode_jpeg(square, JpegEncoding())
                np.testing.assert_array_equal(pixels_of(pack, row), pack.decoded(row).rgb)
            else:
                np.testing.assert_array_equal(pixels_of(pack, row), square)
        with pytest.raises(UnreadableImage, match="HTML"):
            pack.read(BAD[0])

    def test_notes_say_what_is_odd(self, pack: PackSource) -> None:
        html = "not an image but an HTML page"
        assert pack.noted() == dict.fromkeys(BAD, html) | {ALPHA: "alpha on white"}
        assert np.flatnonzero(pack.status == Status.UNREADABLE).tolist() == list(BAD)

    def test_any_hdf5_reader_can_use_it(self, pack: PackSource, photos: ImageSource) -> None:
        with h5py.File(pack.path, "r") as file:
            assert file.attrs["format"] == "alexkit/pack"
            expected = SMALL.train_square(decode(photos.read(1), exif=False).rgb)
            if isinstance(pack, JpegPack):
                assert file["jpeg"].dtype == np.uint8
                assert file["jpeg"].shape == (max(LEAST_JPEG, file["rows/end"][-1]),)
                begin, end = file["rows/end"][:2]
                stored = file["jpeg"][begin:end].tobytes()
                assert stored == encode_jpeg(expected, JpegEncoding())
            else:
                assert file["pixels"].shape == (COUNT, 20, 20, 3)
                assert file["pixels"].dtype == np.uint8
                assert file["pixels"].chunks is None
                np.testing.assert_array_equal(file["pixels"][1], expected)
            assert file["rows/path"].asstr()[5] == photos.record(5).path
            words = file["rows/split"].asstr()[:]
            assert words.tolist() == [SPLITS[code].value for code in photos.splits]
            assert file["classes"].asstr()[:].tolist() == ["Käfer", "dog"]
            assert json.loads(file.attrs["provenance"])["source"] == PROVENANCE["source"]

    def test_a_pack_of_a_pack_holds_the_same(
        self, pack: PackSource, encoding: JpegEncoding | None, tmp_path: Path
    ) -> None:
        again = Packing(tmp_path / "again.pack", pack, encoding).pack()
        for row in np.flatnonzero(pack.status == Status.DONE):
            assert again.read(row) == pack.read(row)
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
    pack: PackSource, photos: ImageSource, encoding: JpegEncoding | None, tmp_path: Path
) -> None:
    path = tmp_path / "x.pack"
    for preprocess in (SMALL, Preprocess(resize=21, crop=16)):
        made = Packing(path, photos, encoding, preprocess).pack()
        assert (made.fingerprint() == pack.fingerprint()) is (preprocess == SMALL)
        path.unlink()


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
            ("images", 0, None, "rows 0 to 63"),
            ("images", -1, None, "rows 128 to 137"),
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
            if dataset == "images":
                images = file["jpeg" if "jpeg" in file else "pixels"]
                images[(entry,) * images.ndim] ^= 1
            else:
                file[dataset][entry] = value
        assert self.wrong(copy) == [said]

    def test_ends_of_jpeg_files(self, photos: ImageSource, tmp_path: Path) -> None:
        path = tmp_path / "x.pack"
        whole = Packing(path, photos, JpegEncoding()).pack().path.read_bytes()
        for entry, value, wrong in (
            (5, 1 + packed_end(path, 5), ["the tables"]),
            (
                127,
                1 + packed_end(path, 127),
                ["rows 64 to 127", "rows 128 to 137", "the tables"],
            ),
            (5, 0, None),
            (0, -1, None),
            (COUNT - 1, 1 << 60, None),
        ):
            path.write_bytes(whole)
            with h5py.File(path, "r+") as file:
                file["rows/end"][entry] = value
            if wrong is None:
                with pytest.raises(DamagedFile):
                    open_pack(path)
            else:
                assert self.wrong(path) == wrong

    def test_a_jpeg_damaged_since_is_a_bad_image(
        self, photos: ImageSource, tmp_path: Path
    ) -> None:
        pack = Packing(tmp_path / "x.pack", photos, JpegEncoding()).pack()
        with h5py.File(pack.path, "r+") as file:
            file["jpeg"][packed_end(pack.path, 0) : packed_end(pack.path, 1)] = 0
        found, rows = open_pack(pack.path), np.arange(3)
        (batch,) = read_batches(found, rows, SMALL.square, batch_size=3, threads=2, exif=False)
        assert [bad.row for bad in batch.bad] == [1]

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
        names = [PATH, LABEL, SPLIT, STATUS, NOTE, *([END] if END in places else [])]
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
                assert "the tables" in self.wrong(copy)
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
        self, packing: Packing, pack: PackSource, tmp_path: Path
    ) -> None:
        for done in (0, 64, 128, COUNT):
            with packing.begin() as writer:
                assert writer.done == done
                assert sorted(writer.unreadable()) == [row for row in BAD if row < done]
                if done < COUNT:
                    assert writer.append(done, packing.blocks(done)[0]) > done
                else:
                    writer.finish()
            assert packing.path.exists() is (done == COUNT)
        assert packing.path.read_bytes() == pack.path.read_bytes()
        assert list(tmp_path.iterdir()) == [packing.path]

    def test_a_block_without_its_statuses_is_written_again(
        self, packing: Packing, pack: PackSource, encoding: JpegEncoding | None
    ) -> None:
        with packing.begin() as writer:
            writer.append(0, packing.blocks()[0])
        # Not with h5py, which cuts off what it does not know of.
        partial = partial_path(packing.path)
        places = read_tables(partial).places
        with partial.open("r+b") as file:
            for name, skipped, left in (
                (STATUS, 10, bytes(54)),
                *([(END, 80, b"?" * 400)] if encoding else []),
                ("jpeg" if encoding else "pixels", 500, b"?" * 1200),
            ):
                file.seek(places[name][0] + skipped)
                file.write(left)
        with packing.begin() as writer:
            assert writer.done == 0
        assert packing.pack().path.read_bytes() == pack.path.read_bytes()

    def test_what_is_unfinished_does_not_pretend(self, packing: Packing) -> None:
        with packing.begin() as writer:
            writer.append(0, packing.blocks()[0])
        os.rename(partial_path(packing.path), packing.path)
        with pytest.raises(DamagedFile, match="unfinished"):
            open_source(packing.path)
        found = open_pack(packing.path, unfinished=True)
        assert not found.complete
        with pytest.raises(UnreadableImage, match="not packed"):
            found.read(COUNT - 2)

    def test_other_settings_are_refused_by_name(
        self, packing: Packing, encoding: JpegEncoding | None
    ) -> None:
        packing.begin().__exit__()
        other = {**PROVENANCE, "source": {}}
        for what, changes in (
            ("preprocessing", {"preprocess": Preprocess(resize=21, crop=16)}),
            ("source", {"provenance": other}),
            ("encoding", {"encoding": JpegEncoding(80) if encoding is None else None}),
        ):
            with pytest.raises(FileMismatch, match=f"another {what}"):
                packing.begin(**changes)
        packing.begin(provenance=other, overwrite=True).__exit__()

    def test_a_finished_pack_is_not_replaced_unasked(self, packing: Packing) -> None:
        packing.pack()
        with pytest.raises(OutputExists):
            packing.begin()
        with packing.begin(overwrite=True):
            assert open_pack(packing.path).complete  # until the new one is

    def test_a_folder_is_no_pack(self, photos: ImageSource, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="folder"):
            Packing(tmp_path, photos, None).begin()

    def test_two_writers_are_refused(self, packing: Packing) -> None:
        other = {"preprocess": Preprocess(resize=21, crop=16)}
        with packing.begin():
            for changes in ({}, {"overwrite": True}, {"overwrite": True, **other}):
                with pytest.raises(UsageError, match="another process"):
                    packing.begin(**changes)
        packing.begin().__exit__()

    def test_a_damaged_partial_is_told(self, packing: Packing) -> None:
        partial_path(packing.path).write_bytes(b"no pack")
        with pytest.raises(DamagedFile) as caught:
            packing.begin()
        assert "--overwrite" in caught.value.hint
        packing.begin(overwrite=True).__exit__()


class TestLengthOfTheFiles:
    """A pack of JPEGs is told its length at the end, in a few pages of the file."""

    def test_killed_between_any_two_of_them_it_goes_on_to_the_same_bytes(
        self, tmp_path: Path
    ) -> None:
        # With some number of rows, what is to be written lies across two pages.
        most, count = 0, 0
        (tmp_path / "photos").mkdir()
        while most < 3 and count < 200:
            Image.fromarray(textured_rgb(count, 24, 30)).save(
                tmp_path / f"photos/{count:07}.png"
            )
            count += 1
            path = tmp_path / f"{count}.pack"
            packing = Packing(path, open_source(tmp_path / "photos"), JpegEncoding())
            packing.begin().__exit__()
            pages = list(jpeg_length(read_tables(partial_path(path)), 200_000))
            assert pages[0][0] == 0
            assert set(np.flatnonzero(pages[0][1])) <= set(range(40, 48))  # the file's end
            most = len(pages)
        assert most == 3
        with packing.begin() as writer:
            packing.fill(writer)
        partial = partial_path(path)
        filled, tables = partial.read_bytes(), read_tables(partial)
        with packing.begin() as writer:
            writer.finish()
        expected = path.read_bytes()
        length = len(expected) - tables.places["jpeg"][0]
        for written in range(4):
            path.unlink()
            data = np.frombuffer(filled, np.uint8).copy()
            for at, matters, values in list(jpeg_length(tables, length))[:written]:
                page = data[at : at + len(values)]
                page[:] = np.where(matters[: len(page)], values[: len(page)], page)
            partial.write_bytes(data)
            with h5py.File(partial, "r") as file:
                assert len(file["jpeg"][:]) in (LEAST_JPEG, length)
            with packing.begin() as writer:
                assert writer.done == count
                writer.finish()
            assert path.read_bytes() == expected

    @pytest.mark.parametrize("rows", [1, 3])
    def test_few_bytes_are_padded(self, rows: int, tmp_path: Path) -> None:
        folder = tmp_path / "photos"
        folder.mkdir()
        for row in range(rows):
            Image.new("RGB", (20, 20)).save(folder / f"{row}.png")
        pack = Packing(tmp_path / "x.pack", open_source(folder), JpegEncoding()).pack()
        with h5py.File(pack.path, "r") as file:
            assert file["jpeg"].shape == (LEAST_JPEG,)
            assert not file["jpeg"][file["rows/end"][-1] :].any()
        assert all(right for _, _, right in pack.verify())
        assert not pixels_of(pack, rows - 1).any()

    def test_what_a_kill_left_behind_them_is_cut_off(
        self, photos: ImageSource, tmp_path: Path
    ) -> None:
        made = []
        for left in (b"", b"?" * 5000):
            packing = Packing(tmp_path / f"{len(left)}.pack", photos, JpegEncoding())
            with packing.begin() as writer:
                packing.fill(writer)
                with partial_path(packing.path).open("ab") as file:
                    file.write(left)
                writer.finish()
            made.append(packing.path.read_bytes())
        assert made[0] == made[1]


class TestDisk:
    @pytest.fixture
    def packing(
        self, photos: ImageSource, encoding: JpegEncoding | None, small_disk: Path
    ) -> Packing:
        return Packing(small_disk / "x.pack", photos, encoding)

    def test_too_small_is_said_before_the_first_byte(
        self, packing: Packing, small_disk: Path
    ) -> None:
        large, told = Preprocess(resize=500, crop=96), list[Budget]()
        with pytest.raises(OutOfSpace, match="needs"):
            packing.begin(preprocess=large, tell=told.append)
        assert told[0].rest > told[0].free
        assert told[0].place == small_disk
        assert list(small_disk.iterdir()) == []

    def test_filled_while_packing(
        self, packing: Packing, pack: PackSource, small_disk: Path
    ) -> None:
        ballast = small_disk / "ballast"
        with packing.begin() as writer:
            writer.append(0, packing.blocks()[0])
            with suppress(OSError), ballast.open("wb", 0) as file:
                while True:
                    file.write(bytes(4096))
            with pytest.raises(OutOfSpace, match="No space"):
                writer.append(64, packing.blocks(64)[0])
        assert not packing.path.exists()
        assert not open_pack(partial_path(packing.path), unfinished=True).complete
        told: list[Budget] = []
        with pytest.raises(OutOfSpace, match="more, and 0 GB are free"):
            packing.begin(tell=told.append)
        assert told[0].continues
        # Two of three blocks, nearly: pages at the edges are there already.
        assert 0.4 < told[0].rest / told[0].whole < 0.7
        ballast.unlink()
        with packing.begin() as writer:
            assert writer.done == 64
        assert packing.pack().path.read_bytes() == pack.path.read_bytes()
