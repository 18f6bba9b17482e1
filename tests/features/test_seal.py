"""The checksum behind a finished file: what HDF5 must not see is never shown to it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexkit.choices import Compress
from alexkit.errors import DamagedFile
from alexkit.features.layout import FEATURES, LABEL, REASON
from alexkit.features.seal import seal_holds
from alexkit.features.store import FeatureStore
from tests.features.conftest import Example


def content(path: Path) -> object:
    """All that a reader can learn of a file but its features."""
    with FeatureStore.open(path) as store:
        tables = store.labels.tobytes(), store.splits.tobytes(), store.status.tobytes()
        layers = store.layers, store.dtype, store.classes
        return store.provenance, store.paths, store.complete, *layers, *tables


def features_and_reasons(path: Path) -> list[tuple[int, int]]:
    with h5py.File(path) as file:
        datasets = [*file[FEATURES].values(), file[REASON]]
        places = [(d.id.get_offset(), d.id.get_storage_size()) for d in datasets]
        return [(offset, offset + size) for offset, size in places]


@pytest.mark.parametrize("compress", Compress)
def test_any_changed_byte_of_the_tables_is_found(example: Example, compress: Compress) -> None:
    path = example.write(compress=compress)
    assert seal_holds(path) is True
    whole = path.read_bytes()
    with h5py.File(path) as file:
        if compress is Compress.NONE:
            label = file[LABEL].id.get_offset()
        else:
            label = whole.index(file[LABEL][:].tobytes())
    for at in (0, 8, 40, 100, 2000, label, len(whole) - 1, len(whole) - 20, len(whole) - 50):
        damaged = bytearray(whole)
        damaged[at] ^= 4
        path.write_bytes(damaged)
        assert seal_holds(path) is False
        with pytest.raises(DamagedFile, match="its tables are not as written"):
            FeatureStore.open(path)


def test_features_are_not_summed(example: Example) -> None:
    path = example.write()
    (first, _), *_ = features_and_reasons(path)
    with path.open("r+b") as raw:
        raw.seek(first)
        raw.write(np.float32(7).tobytes())
    with FeatureStore.open(path) as store:
        assert store.sealed
        assert store.values("conv5", np.array([0]))[0, 0, 0, 0] == 7


@pytest.mark.parametrize("compress", [Compress.NONE, Compress.GZIP])
def test_a_seal_that_was_cut_short(example: Example, compress: Compress) -> None:
    path = example.write(compress=compress)
    whole = path.read_bytes()
    for missing in range(1, 130):
        path.write_bytes(whole[:-missing])
        assert seal_holds(path) is not True
        with h5py.File(path) if missing < 50 else path.open("rb"):  # other readers do not mind
            pass
    path.write_bytes(whole[:-1])
    with pytest.raises(DamagedFile, match="truncated"):
        FeatureStore.open(path)


def test_who_changes_a_file_through_hdf5_may_go_on(example: Example) -> None:
    path = example.write()
    with FeatureStore.open(path) as store:
        assert store.sealed
    with h5py.File(path, "r+") as file:
        file["rows/score"] = np.arange(25)
        file[LABEL][0] = 2
    assert seal_holds(path) is None
    with FeatureStore.open(path) as store:
        assert not store.sealed
        assert store.labels[0] == 2


def test_a_seal_that_a_kill_cut_short_is_written_again(example: Example) -> None:
    whole = example.write().read_bytes()
    for missing in (1, 30, 60, 95, 96):
        example.path.unlink()
        example.partial.write_bytes(whole[:-missing])
        with example.create() as writer:
            assert not writer.pending().size
            writer.finish({"ended": "2012-12-03T10:00:00"})
        assert example.path.read_bytes() == whole


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished file that no test changes."""
    return Example(tmp_path_factory.mktemp("sealed")).write()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_a_mutated_file_is_refused_or_equal(sealed: Path, data: st.DataObject) -> None:
    """Bytes changed, cut out, doubled or cut off anywhere, but for features and reasons."""
    whole, left_out = sealed.read_bytes(), features_and_reasons(sealed)
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, max(0, len(changed) - 1)))
        kind = data.draw(st.sampled_from(["flip", "put", "cut out", "double", "cut off"]))
        if kind in ("flip", "put"):
            if any(begin <= at < end for begin, end in left_out) or at >= len(changed):
                continue
            given = data.draw(st.integers(0, 255))
            changed[at] = given if kind == "put" else changed[at] ^ (1 << given % 8)
        elif kind == "cut out":
            del changed[at : at + data.draw(st.integers(1, 64))]
        elif kind == "double":
            changed[at:at] = changed[at : at + data.draw(st.integers(1, 64))]
        else:
            del changed[at:]
    other = sealed.with_name("mutated.h5")
    other.write_bytes(changed)
    if changed == whole:
        assert content(other) == content(sealed)
        return
    with pytest.raises(DamagedFile):
        FeatureStore.open(other)
