"""The feature file: written and read back, then damaged in every way at hand."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from alexkit.choices import FeatureDtype
from alexkit.errors import DamagedFile, DataError, UnknownName
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from tests.features.conftest import Example


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [FeatureDtype.FLOAT32, FeatureDtype.FLOAT16])
    def test_what_was_written_is_read(self, example: Example, dtype: FeatureDtype) -> None:
        with FeatureStore.open(example.write(dtype=dtype)) as store:
            assert store.complete
            assert len(store) == example.count
            assert store.paths == example.rows.paths
            assert store.classes == example.classes
            assert store.layers == example.layers
            np.testing.assert_array_equal(store.labels, example.rows.labels)
            np.testing.assert_array_equal(store.splits, example.rows.splits)
            assert store.provenance["fingerprint"] == example.fingerprint
            assert store.provenance["ended"] == "2012-12-03T10:00:00"
            assert store.reasons == {row: reason for row, (_, reason) in example.bad.items()}
            for layer, values in example.values.items():
                matrix = store.matrix(layer)
                flat = values[example.good].astype(dtype.value).reshape(len(matrix), -1)
                assert matrix.dtype == dtype.value
                np.testing.assert_array_equal(matrix, flat)

    def test_rows_and_matrix_agree_for_every_selection(self, example: Example) -> None:
        with FeatureStore.open(example.write()) as store:
            seen = []
            for split, code in (("train", 1), ("val", 2), ("test", 3), ("", 0)):
                for labelled in (False, True):
                    rows = store.rows(split, labelled=labelled)
                    wanted = [
                        row
                        for row in example.good
                        if example.rows.splits[row] == code
                        and (example.rows.labels[row] >= 0 or not labelled)
                    ]
                    assert rows.tolist() == wanted
                    matrix = store.matrix("fc7", split, labelled=labelled)
                    np.testing.assert_array_equal(matrix, example.values["fc7"][rows])
                seen += store.rows(split).tolist()
            assert sorted(seen) == store.rows().tolist() == example.good.tolist()

    def test_values_of_any_rows_in_any_order(self, example: Example) -> None:
        rows = np.array([24, 3, 0, 11, 11, 12])
        with FeatureStore.open(example.write()) as store:
            values = store.values("conv5", rows)
            assert np.isnan(values[1]).all()
            good = [0, 2, 3, 4, 5]
            np.testing.assert_array_equal(values[good], example.values["conv5"][rows[good]])
            assert store.values("conv5", rows[:0]).shape == (0, 3, 2, 2)

    def test_only_what_is_asked_for_is_in_memory(self, example: Example) -> None:
        count = 4000
        rows = type(example.rows)(
            tuple(f"{row}.jpg" for row in range(count)),
            np.zeros(count, np.int32),
            np.array([1 + (row >= 100) for row in range(count)], np.uint8),
        )
        with example.create(rows=rows, layers={"fc7": (4096,)}) as writer:
            for first in range(0, count, 1000):
                block = np.ones((1000, 4096), np.float32)
                writer.append(np.arange(first, first + 1000), {"fc7": block})
            writer.finish()
        tracemalloc.start()
        with FeatureStore.open(str(example.path)) as store:
            assert store.matrix("fc7", "train").shape == (100, 4096)
            _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 12e6  # of 65.5 MB

    def test_reading_in_blocks(self, example: Example, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("alexkit.features.store.BLOCK_BYTES", 7 * 160)
        with FeatureStore.open(example.write()) as store:
            np.testing.assert_array_equal(
                store.matrix("fc7"), example.values["fc7"][example.good]
            )

    def test_rows_that_are_not_done_hold_nan(self, example: Example) -> None:
        with example.create() as writer:
            writer.append(np.arange(3), {k: v[:3] for k, v in example.values.items()})
            writer.mark(3, Status.UNREADABLE, "gone")
        with FeatureStore.open(example.partial) as store:
            assert not store.complete
            assert store.rows().tolist() == [0, 1, 2]
            for layer in example.layers:
                values = store.values(layer, np.arange(example.count))
                assert np.isfinite(values[:3]).all()
                assert np.isnan(values[3:]).all()

    def test_no_classes_and_no_labels(self, example: Example) -> None:
        rows = type(example.rows)(
            example.rows.paths, np.full(example.count, -1, np.int32), example.rows.splits
        )
        with FeatureStore.open(example.write(rows=rows, classes=())) as store:
            assert store.classes == ()
            assert store.rows(labelled=True).size == 0
            assert store.matrix("fc7", labelled=True).shape == (0, 40)

    def test_unknown_layer_and_split(self, example: Example) -> None:
        with FeatureStore.open(example.write()) as store:
            with pytest.raises(UnknownName, match="no layer 'fc8'") as unknown:
                store.matrix("fc8")
            assert "did you mean fc7" in unknown.value.hint
            with pytest.raises(UnknownName, match="no split 'valid'"):
                store.rows("valid")


class TestTheFormat:
    def test_any_hdf5_reader_finds_what_the_interface_promises(self, example: Example) -> None:
        with h5py.File(example.write(), "r") as file:
            assert file.attrs["format"] == "alexkit/features"
            assert file.attrs["format_version"] == 1
            assert file.attrs["complete"].dtype == bool
            assert file.attrs["complete"]
            assert json.loads(file.attrs["provenance"])["command"] == "alexkit features"
            assert sorted(file["features"]) == ["conv5", "fc7"]
            assert file["features/conv5"].shape == (25, 3, 2, 2)
            assert file["features/fc7"].dtype == np.dtype("<f4")
            assert np.isnan(file["features/fc7"].fillvalue)
            assert sorted(file["rows"]) == sorted(TABLES)
            assert file["rows/label"].dtype == np.dtype("<i4")
            assert file["rows/status"].dtype == np.dtype("u1")
            assert file["rows/status"][[0, 3, 17]].tolist() == [1, 2, 3]
            for name in ("rows/path", "classes"):
                assert h5py.check_string_dtype(file[name].dtype).encoding == "utf-8"
            for name, length in (("rows/split", 5), ("rows/reason", 200)):
                assert h5py.check_string_dtype(file[name].dtype) == ("ascii", length)
            assert file["rows/path"].asstr()[1] == "klasse/Bild 1 – größer.jpg"
            assert set(file["rows/split"].asstr()[:]) == {"", "train", "val", "test"}
            assert file["rows/reason"].asstr()[3] == "broken data stream"
            assert file["rows/reason"].asstr()[4] == ""
            assert file["classes"].asstr()[2] == "Wespen ünd Hornissen"

    def test_nothing_in_it_needs_a_plugin_or_a_new_library(self, example: Example) -> None:
        path = example.write()
        assert path.read_bytes()[8] == 0, "the superblock is of the oldest version"
        with h5py.File(path, "r") as file:
            for name in ("features/conv5", "features/fc7", "rows/status"):
                assert file[name].chunks is None
                assert file[name].compression is None


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    """A damage done through HDF5 itself."""

    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def put(name: str, value: Any, row: int | None = None) -> Callable[[h5py.File], None]:
    """Another value of a row, or of the whole dataset; None takes it away."""

    def change(file: h5py.File) -> None:
        if row is not None:
            file[name][row] = value
            return
        del file[name]
        if value is not None:
            file[name] = value

    return change


def attribute(name: str, value: Any) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


TABLES = ("label", "path", "reason", "split", "status")
DAMAGES: dict[str, tuple[Callable[[h5py.File], None], str]] = {
    "foreign": (attribute("format", "somebody else's"), "no feature file of alexkit"),
    "newer": (attribute("format_version", 2), "has format version 2"),
    "version no number": (attribute("format_version", "one"), "is damaged"),
    "provenance no JSON": (attribute("provenance", "{"), "is damaged"),
    "provenance a list": (attribute("provenance", "[]"), "no JSON object"),
    "status unset": (put("rows/status", 0, row=5), "rows are to do"),
    "status unknown": (put("rows/status", 9, row=5), "none of 0, 1, 2, 3"),
    "status bad without reason": (put("rows/status", 2, row=5), "no reason"),
    "status of other length": (put("rows/status", np.ones(3, "u1")), "label is odd"),
    "no rows": (put("rows/status", np.ones(0, "u1")), "odd|no rows"),
    "label without class": (put("rows/label", 3, row=5), "label has no class"),
    "label below": (put("rows/label", -2, row=5), "label has no class"),
    "labels as text": (put("rows/label", ["a"] * 25), "label is odd"),
    "split unknown": (put("rows/split", "fold1", row=5), "a split is none"),
    "layer of other length": (put("features/fc7", np.ones((3, 40), "f4")), "another number"),
    "layer of integers": (put("features/fc7", np.ones((25, 40), "i4")), "layers are odd"),
    "layer a scalar": (put("features/fc7", np.float32(1)), "is damaged"),
    "layer a folder": (lambda file: file.create_group("features/fc8"), "is damaged"),
    "paths of other length": (put("rows/path", ["a.jpg"]), "row tables differ"),
    "path not UTF-8": (put("classes", b"\xff\xfe", row=1), "is damaged"),
    **{
        f"no {name}": (put(name, None), "is damaged|layers are odd")
        for name in ("features", "classes", *map("rows/{}".format, TABLES))
    },
}


class TestDamage:
    @pytest.mark.parametrize("damage", DAMAGES)
    def test_an_edited_file_is_refused(self, example: Example, damage: str) -> None:
        change, message = DAMAGES[damage]
        edit(change)(example.write())
        with pytest.raises(DamagedFile, match=message):
            FeatureStore.open(example.path)

    def test_a_truncated_file_is_refused_at_any_length(self, example: Example) -> None:
        whole = example.write().read_bytes()
        end = len(whole)
        for length in (0, 1, 7, 8, 95, 96, 800, 2048, *range(4096, end, 1500), end - 1):
            example.path.write_bytes(whole[:length])
            with pytest.raises(DamagedFile):
                FeatureStore.open(example.path)
        example.path.write_bytes(whole)
        FeatureStore.open(example.path).close()

    def test_a_row_called_done_that_is_not(self, example: Example) -> None:
        edit(put("rows/status", 1, row=3))(example.write())
        broken = pytest.raises(DamagedFile, match="row 3 of fc7 is done but no numbers")
        with FeatureStore.open(example.path) as store, broken:
            store.matrix("fc7")

    def test_a_refused_file_is_let_go(self, example: Example) -> None:
        edit(put("classes", None))(example.write())
        with pytest.raises(DamagedFile):
            FeatureStore.open(example.path)
        with h5py.File(example.path, "w"):  # h5py refuses this while the file is open
            pass

    def test_what_is_not_there(self, example: Example, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="there is no file") as missing:
            FeatureStore.open(example.path)
        assert "makes feature files" in missing.value.hint
        example.create().close()
        with pytest.raises(DataError, match="there is no file") as missing:
            FeatureStore.open(example.path)
        assert "features.h5.partial is unfinished" in missing.value.hint
        with pytest.raises(DataError, match="cannot be opened"):
            FeatureStore.open(tmp_path)
