"""Batches: the same for any number of threads, honest about bad images, and no leftovers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from alexkit.errors import UnreadableImage
from alexkit.images.augment import augment
from alexkit.images.batches import BadRow, Batch, Remark, epoch_order, read_batches
from alexkit.images.decode import decode
from alexkit.images.draws import Rows
from alexkit.images.files import FileSource
from alexkit.images.opening import open_source
from alexkit.images.preprocess import Preprocess

Square = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]
SMALL = Preprocess(resize=20, crop=16)
SMALL_TRAINING = Preprocess(resize=24, crop=16)
BAD = (3, 4, 5, 17)
"""Rows of the ``photos`` fixture that cannot be decoded; 3 to 5 fill a batch of three."""


@pytest.fixture
def photos(tmp_path: Path) -> FileSource:
    """23 rows in a list: photos in two classes, four bad files, one with alpha."""
    rng = np.random.default_rng(0)
    lines = []
    for row in range(23):
        alpha = row == 9
        pixels = rng.integers(0, 256, (24 + row, 30, 3 + alpha), dtype=np.uint8)
        name = f"{row:02}.{'png' if row % 3 else 'jpg'}"
        kind = "PNG" if row % 3 or alpha else "JPEG"
        Image.fromarray(pixels).save(tmp_path / name, kind)
        if row in BAD:
            (tmp_path / name).write_bytes(b"<html>")
        label = ("cat", "dog", "")[row % 3]
        lines.append(f"{name},{label}\n")
    (tmp_path / "list.csv").write_text("".join(lines))
    source = open_source(tmp_path / "list.csv")
    assert isinstance(source, FileSource)
    return source


def reading(
    source: FileSource,
    rows: Rows,
    size: int,
    threads: int,
    square: Square = SMALL.square,
    **ranks: int,
) -> Iterator[Batch]:
    options = {"batch_size": size, "threads": threads, **ranks}
    return read_batches(source, rows, square, exif=False, **options)


def run(source: FileSource, rows: Rows, size: int, threads: int) -> list[Batch]:
    return list(reading(source, rows, size, threads))


def assert_same(one: list[Batch], other: list[Batch]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.rows, b.rows)
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
        assert (a.bad, a.remarks) == (b.bad, b.remarks)


def decoders() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("alexkit-decode")]


@pytest.mark.parametrize("size", [1, 3, 8, 100])
def test_threads_change_nothing(photos: FileSource, size: int) -> None:
    rows = epoch_order(np.arange(23), seed=0, epoch=0)
    alone = run(photos, rows, size, 0)
    assert_same(alone, run(photos, rows, size, 1))
    assert_same(alone, run(photos, rows, size, 4))
    assert not decoders()


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_batches_of_one_process(photos: FileSource, ranks: int) -> None:
    """Training pixels too: equal bits for 0, 1 and 4 threads and any number of ranks."""
    rows = epoch_order(np.arange(23), seed=0, epoch=0)

    def pixels(batch: Batch) -> dict[int, bytes]:
        x = augment(batch.pixels, SMALL_TRAINING, seed=0, epoch=0, rows=batch.rows)
        return {int(row): one.numpy().tobytes() for row, one in zip(batch.rows, x, strict=True)}

    def read(threads: int, rank: int = 0, ranks: int = 1) -> list[dict[int, bytes]]:
        square = SMALL_TRAINING.train_square
        batches = reading(photos, rows, 8, threads, square, rank=rank, ranks=ranks)
        return [pixels(batch) for batch in batches]

    alone = read(0)
    assert alone == read(1) == read(4)
    shares = [
        read(threads, rank, ranks)
        for rank, threads in zip(range(ranks), (0, 4, 1), strict=False)
    ]
    for step, parts in zip(alone, zip(*shares, strict=True), strict=True):
        assert {row: x for part in parts for row, x in part.items()} == step
        assert sum(map(len, parts)) == len(step)


def test_a_rank_without_a_row_of_the_last_batch_gets_an_empty_one(photos: FileSource) -> None:
    *_, last = reading(photos, np.arange(3), 2, 1, rank=1, ranks=2)
    assert last.rows.tolist() == []
    assert last.pixels.shape == (0, 16, 16, 3)


def test_batches_hold_what_the_rows_say(photos: FileSource) -> None:
    rows = np.arange(23)
    batches = run(photos, rows, 3, 2)
    assert len(batches) == 8
    good = [row for row in range(23) if row not in BAD]
    assert np.concatenate([b.rows for b in batches]).tolist() == good
    pixels = torch.cat([b.pixels for b in batches])
    assert pixels.dtype == torch.uint8
    for at, row in enumerate(good):
        expected = SMALL.square(decode(photos.read(row), exif=False).rgb)
        np.testing.assert_array_equal(pixels[at].numpy(), expected)
    labels = torch.cat([b.labels for b in batches])
    assert labels.dtype == torch.int64
    assert labels.tolist() == [(0, 1, -1)[row % 3] for row in good]


def test_bad_rows_are_left_out_and_listed(photos: FileSource) -> None:
    batches = run(photos, np.arange(23), 3, 2)
    bad = [one for batch in batches for one in batch.bad]
    assert bad == [
        BadRow(row, photos.record(row).path, "not an image but an HTML page") for row in BAD
    ]
    nothing = batches[1]
    assert nothing.rows.tolist() == []
    assert nothing.pixels.shape == (0, 16, 16, 3)
    assert nothing.labels.shape == (0,)
    remarks = [one for batch in batches for one in batch.remarks]
    assert remarks == [Remark(9, "09.jpg", "alpha on white")]


def test_a_subset_in_any_order(photos: FileSource) -> None:
    rows = np.array([20, 1, 20, 7])
    (batch,) = run(photos, rows, 10, 2)
    assert batch.rows.tolist() == rows.tolist()
    assert torch.equal(batch.pixels[0], batch.pixels[2])
    assert run(photos, np.empty(0, np.int64), 10, 2) == []


def test_leaving_early_leaves_no_thread(photos: FileSource) -> None:
    batches = reading(photos, np.arange(23), 2, 4)
    assert isinstance(batches, Iterator)
    assert not decoders()  # nothing starts before it is asked for
    next(batches)
    assert decoders()
    batches.close()  # type: ignore[attr-defined]
    assert not decoders()


@pytest.mark.parametrize("threads", [0, 1, 4])
def test_a_bug_in_a_thread_comes_out(photos: FileSource, threads: int) -> None:
    def broken(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if rgb.shape[0] == 24 + 13:
            raise ZeroDivisionError("a bug")
        return SMALL.square(rgb)

    batches = reading(photos, np.arange(23), 4, threads, broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(batches)
    assert not decoders()


def test_reading_ahead_is_bounded(photos: FileSource) -> None:
    asked: list[int] = []

    class Counting(FileSource):
        def read(self, row: int) -> bytes:
            asked.append(row)
            return super().read(row)

    source = Counting(**vars(photos))
    batches = reading(source, np.tile(np.arange(3), 100), 10, 1)
    next(batches)
    give_up = time.monotonic() + 60
    while len(asked) < 30 and time.monotonic() < give_up:
        time.sleep(0.01)
    time.sleep(0.1)  # in which it would go on
    assert len(asked) == 30  # the batch in hand and two ahead
    batches.close()  # type: ignore[attr-defined]


def test_a_file_that_goes_away_is_a_bad_row(photos: FileSource) -> None:
    (photos.place / photos.paths[0]).unlink()
    batch = run(photos, np.arange(2), 2, 1)[0]
    assert batch.rows.tolist() == [1]
    assert batch.bad[0].reason == "the file is missing"
    with pytest.raises(UnreadableImage):
        photos.read(0)


def test_epoch_order_is_a_keyed_permutation() -> None:
    rows = np.arange(1000)
    first = epoch_order(rows, seed=1, epoch=0)
    np.testing.assert_array_equal(np.sort(first), rows)
    np.testing.assert_array_equal(first, epoch_order(rows, seed=1, epoch=0))
    # The rows alone decide, not where they stood before.
    np.testing.assert_array_equal(first, epoch_order(rows[::-1], seed=1, epoch=0))
    # Leaving rows out moves no other.
    kept = rows[rows % 7 != 0]
    np.testing.assert_array_equal(epoch_order(kept, seed=1, epoch=0), first[first % 7 != 0])
    for other in (epoch_order(rows, seed=2, epoch=0), epoch_order(rows, seed=1, epoch=1)):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.15
        assert (first == other).sum() < 10
    assert abs(np.corrcoef(first, rows)[0, 1]) < 0.15


def test_every_place_is_as_likely_for_a_row() -> None:
    rows = np.arange(10)
    places = np.array(
        [np.argsort(epoch_order(rows, seed=0, epoch=epoch)) for epoch in range(4000)]
    )
    counts = np.array([np.bincount(places[:, row], minlength=10) for row in rows])
    assert np.abs(counts - 400).max() < 5 * np.sqrt(400)
