"""The writer: going on, refusing what does not fit, running out of disk."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from alexkit.choices import FeatureDtype
from alexkit.errors import DamagedFile, FileMismatch, OutOfSpace, OutputExists, UsageError
from alexkit.features.layout import Plan, RowTable, Status
from alexkit.features.store import FeatureStore
from alexkit.features.writer import FeatureWriter
from tests.conftest import held_open
from tests.features.conftest import Example


class TestGoingOn:
    def test_in_pieces_gives_the_same_file(self, example: Example, tmp_path: Path) -> None:
        with example.create() as writer:
            writer.append(
                np.array([9, 5, 6]), {k: v[[9, 5, 6]] for k, v in example.values.items()}
            )
            writer.mark(17, *example.bad[17])
        with example.create() as writer:
            assert writer.pending().tolist() == [
                *range(5),
                7,
                8,
                *range(10, 17),
                *range(18, 25),
            ]
            example.fill(writer, batch=3)
        with example.create() as writer:
            assert writer.pending().size == 0
            writer.finish({"ended": "2012-12-03T10:00:00"})
        in_pieces = example.path.read_bytes()
        example.path.unlink()
        assert example.write().read_bytes() == in_pieces
        assert list(tmp_path.iterdir()) == [example.path]

    def test_half_a_row_left_by_a_kill_is_gone(self, example: Example) -> None:
        example.create().close()
        with h5py.File(example.partial, "r+") as file:
            file["features/fc7"][3:5] = 7.0
        with example.create() as writer:
            example.fill(writer)
            writer.finish()
        with FeatureStore.open(example.path) as store:
            assert np.isnan(store.values("fc7", np.array([3]))).all()
            np.testing.assert_array_equal(
                store.values("fc7", np.array([4]))[0], example.values["fc7"][4]
            )

    def test_provenance_stays_that_of_the_beginning(self, example: Example) -> None:
        fingerprint = {"fingerprint": example.fingerprint}
        example.create(provenance={**fingerprint, "began": "monday"}).close()
        with example.create(provenance={**fingerprint, "began": "tuesday"}) as writer:
            example.fill(writer)
            writer.finish({"ended": "wednesday"})
        with FeatureStore.open(example.path) as store:
            assert store.provenance["began"] == "monday"
            assert store.provenance["ended"] == "wednesday"

    def test_problems_are_known_to_who_goes_on(self, example: Example) -> None:
        with example.create() as writer:
            assert writer.problems() == {}
            writer.mark(3, *example.bad[3])
            assert writer.problems() == {3: "broken data stream"}
        with example.create() as writer:
            assert writer.problems() == {3: "broken data stream"}
            writer.mark(17, *example.bad[17])
            assert writer.problems() == {3: "broken data stream", 17: "fc7 holds nan"}

    def test_discarded(self, example: Example, tmp_path: Path) -> None:
        with example.create() as writer:
            writer.discard()
        assert list(tmp_path.iterdir()) == []

    def test_killed_before_the_rename(self, example: Example) -> None:
        whole = example.write().read_bytes()
        example.path.rename(example.partial)
        with example.create() as writer:
            assert writer.pending().size == 0
            writer.finish({"ended": "2012-12-03T10:00:00"})
        assert example.path.read_bytes() == whole

    def test_an_unborn_file_of_a_killed_process_is_replaced(self, example: Example) -> None:
        unborn = example.partial.with_name("features.h5.partial.new")
        unborn.write_bytes(b"half a skeleton" * 10_000)
        example.write()
        assert not unborn.exists()


class TestWhatDoesNotFit:
    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            (
                {"provenance": {"fingerprint": {"weights": "ffff"}}},
                "weights is 'a1b2' there and 'ffff' now",
            ),
            ({"provenance": {}}, "fingerprint is {"),
            ({"dtype": FeatureDtype.FLOAT16}, "dtype is 'float32' there and 'float16' now"),
            ({"layers": {"fc7": (40,)}}, r"layers.conv5 is \(3, 2, 2\) there and None now"),
            (
                {"layers": {"conv5": (3, 2, 2), "fc7": (41,)}},
                r"layers.fc7 is \(40,\) there and \(41,\) now",
            ),
            ({"classes": ("ants", "bees")}, "classes is "),
        ],
    )
    def test_the_difference_is_named(
        self, example: Example, changes: dict[str, Any], named: str
    ) -> None:
        example.create().close()
        before = example.partial.read_bytes()
        with pytest.raises(FileMismatch, match=named) as mismatch:
            example.create(**changes)
        assert "--overwrite" in mismatch.value.hint
        assert example.partial.read_bytes() == before

    def test_a_nested_setting_is_named_in_full(self, example: Example) -> None:
        example.create().close()
        other = {**example.fingerprint, "preprocessing": {"resize": 256, "crop": 227}}
        with pytest.raises(FileMismatch, match=r"settings: preprocessing.crop is 224 there"):
            example.create(provenance={"fingerprint": other})

    def test_other_rows_are_named(self, example: Example) -> None:
        example.create().close()
        paths, labels, splits = example.rows.paths, example.rows.labels, example.rows.splits
        for rows, named in (
            (RowTable(paths[:9], labels[:9], splits[:9]), "25 rows, and now there are 9"),
            (RowTable((*paths[:24], "new.jpg"), labels, splits), "row 24 is .* 'new.jpg' now"),
            (RowTable(paths, np.zeros_like(labels), splits), "Bild 1 .* another label"),
        ):
            with pytest.raises(FileMismatch, match=named):
                example.create(rows=rows)

    def test_overwrite_starts_again(self, example: Example) -> None:
        example.create(dtype=FeatureDtype.FLOAT16).close()
        with example.create(overwrite=True) as writer:
            assert writer.pending().size == example.count

    def test_overwrite_goes_on_with_what_fits(self, example: Example) -> None:
        with example.create() as writer:
            writer.mark(3, *example.bad[3])
        with example.create(overwrite=True) as writer:
            assert writer.pending().size == example.count - 1

    def test_a_damaged_partial_is_kept_unless_overwritten(self, example: Example) -> None:
        example.create().close()
        example.partial.write_bytes(example.partial.read_bytes()[:3000])
        with pytest.raises(DamagedFile, match="partial is truncated") as damaged:
            example.create()
        assert "add --overwrite" in damaged.value.hint
        with example.create(overwrite=True) as writer:
            assert writer.pending().size == example.count


class TestFinishedFiles:
    def test_are_not_overwritten(self, example: Example) -> None:
        before = example.write().read_bytes()
        with pytest.raises(OutputExists, match="exists"):
            example.create()
        assert example.path.read_bytes() == before
        assert not example.partial.exists()

    def test_stay_until_the_new_one_is_complete(self, example: Example) -> None:
        before = example.write().read_bytes()
        with example.create(overwrite=True, dtype=FeatureDtype.FLOAT16) as writer:
            example.fill(writer)
            assert example.path.read_bytes() == before
            writer.finish()
        with FeatureStore.open(example.path) as store:
            assert store.dtype == np.float16

    def test_a_folder_is_no_file(self, example: Example) -> None:
        example.path.mkdir()
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="is a folder"):
                example.create(overwrite=overwrite)

    def test_folders_above_are_made(self, example: Example) -> None:
        example.path = example.path.parent / "runs" / "features-001" / "features.h5"
        assert example.write().exists()


class TestNumbers:
    def test_float16_never_holds_infinity(self, example: Example) -> None:
        values = {name: v[:4].copy() for name, v in example.values.items()}
        values["fc7"][1, 5] = -70123.0
        values["conv5"][2, 1, 1, 0] = np.inf
        values["fc7"][3, :2] = 65519.0, 65504.0  # the largest numbers that are rounded down
        with example.create(dtype=FeatureDtype.FLOAT16) as writer:
            problems = writer.append(np.arange(4), values)
            assert [tuple(problem) for problem in problems] == [
                (2, Status.NON_FINITE, "conv5 holds inf"),
                (1, Status.NON_FINITE, "fc7 reaches -70123, more than float16 can hold"),
            ]
        with FeatureStore.open(example.partial) as store:
            assert store.status[:5].tolist() == [1, 3, 3, 1, 0]
            assert store.reasons[1] == "fc7 reaches -70123, more than float16 can hold"
            for layer in example.layers:
                assert np.isnan(store.values(layer, np.array([1, 2, 4]))).all()
            assert store.matrix("fc7")[1, :2].tolist() == [65504.0, 65504.0]

    def test_nan_is_marked_in_float32(self, example: Example) -> None:
        values = {name: v[:2].copy() for name, v in example.values.items()}
        values["fc7"][0, 0] = np.nan
        with example.create() as writer:
            (problem,) = writer.append(np.array([7, 9]), values)
            assert problem == (7, Status.NON_FINITE, "fc7 holds nan")
            assert 7 not in writer.pending()
            assert 9 not in writer.pending()


class TestTheDisk:
    def test_too_little_space_is_said_before_the_work(self, small_disk: Path) -> None:
        example = big_example(small_disk, paths=10, numbers=60_000)
        with pytest.raises(OutOfSpace, match=r"needs 0.0024 GB, and 0.0021 GB are free"):
            example()
        assert list(small_disk.iterdir()) == []

    def test_space_that_ends_while_the_empty_file_is_made(self, small_disk: Path) -> None:
        for paths, numbers in ((20_000, 1), (10, 52_400)):  # long tables, large features
            with pytest.raises(OutOfSpace, match="No space left on device") as full:
                big_example(small_disk, paths=paths, numbers=numbers)()
            assert "free some space" in full.value.hint
            assert list(small_disk.iterdir()) == []

    def test_space_that_ends_in_the_middle(self, small_disk: Path, tmp_path: Path) -> None:
        free, full = (
            big_example(folder, paths=2000, numbers=1) for folder in (tmp_path, small_disk)
        )
        with free() as writer:
            mark_all(writer)
            writer.finish()
        ballast = small_disk / "ballast"
        with full() as writer:
            fill_disk(ballast)
            with pytest.raises(OutOfSpace, match="No space left"):
                mark_all(writer)
        ballast.unlink()
        with full() as writer:
            done = 2000 - writer.pending().size
            assert done < 2000
            assert done > 0
            mark_all(writer)
            writer.finish()
        path = small_disk / "features.h5"
        assert path.read_bytes() == (tmp_path / "features.h5").read_bytes()

    def test_a_disk_that_cannot_be_written(self, small_disk: Path) -> None:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(OutOfSpace, match=r"cannot be written: Read-only") as told:
            big_example(small_disk, paths=10, numbers=1)()
        assert "space" not in told.value.hint, "room would be no help"

    def test_a_file_where_the_folder_should_be(self, example: Example, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("")
        example.path = tmp_path / "runs" / "features.h5"
        with pytest.raises(OutOfSpace, match="cannot be written"):
            example.create()


def big_example(folder: Path, *, paths: int, numbers: int) -> Callable[[], FeatureWriter]:
    """Begins or continues a file of so many rows, with so many float32 each."""

    def create() -> FeatureWriter:
        names = tuple(f"{row:0120d}.jpg" for row in range(paths))
        rows = RowTable(names, np.zeros(paths, np.int32), np.zeros(paths, np.uint8))
        layers, provenance = {"fc7": (numbers,)}, {"fingerprint": {}}
        plan = Plan(rows, ("a",), layers, FeatureDtype.FLOAT32, provenance)
        return FeatureStore.create(folder / "features.h5", plan)

    return create


def mark_all(writer: FeatureWriter) -> None:
    for row in writer.pending().tolist():
        writer.mark(row, Status.UNREADABLE, f"number {row}")


def fill_disk(ballast: Path) -> None:
    with open(ballast, "wb", buffering=0) as file:
        for size in (65536, 4096):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue


class TestTwoProcesses:
    def test_only_one_writes_and_none_reads_meanwhile(self, example: Example) -> None:
        example.create().close()
        with held_open(example.partial):
            for overwrite in (False, True):
                with pytest.raises(UsageError, match="in use by another process"):
                    example.create(overwrite=overwrite)
            with pytest.raises(UsageError, match="in use by another process"):
                FeatureStore.open(example.partial)
        with example.create() as writer:
            assert writer.pending().size == example.count
