"""A compressed file holds the same, and a stop at any moment loses nothing."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from alexkit.choices import Compress
from alexkit.errors import Interrupted, OutOfSpace, OutputExists
from alexkit.features.compress import copy_path
from alexkit.features.store import FeatureStore
from alexkit.whole_file import partial_path
from tests.features.conftest import Example

FILTERS = [Compress.LZF, Compress.GZIP]


def everything(path: Path) -> dict[str, object]:
    """All values and attributes of a feature file, by name."""
    with h5py.File(path) as file:
        found: dict[str, object] = {}

        def keep(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                found[name] = (item.dtype, item[()].tolist() if item.dtype == "O" else item[()])

        file.visititems(keep)
        return found | {name: file.attrs[name] for name in file.attrs}


@pytest.mark.parametrize("how", FILTERS)
def test_values_are_the_same(example: Example, tmp_path: Path, how: Compress) -> None:
    plain = everything(example.write())
    example.path.unlink()
    packed = everything(example.write(compress=how))
    assert packed.keys() == plain.keys()
    for name in plain:
        np.testing.assert_equal(packed[name], plain[name])
    with h5py.File(example.path) as file:
        assert file["features/fc7"].compression == how.value
        assert file["features/fc7"].shuffle
    with FeatureStore.open(example.path) as store:
        assert store.complete
        rows = example.good[[5, 0, 3]]
        np.testing.assert_array_equal(
            store.values("conv5", rows), example.values["conv5"][rows]
        )
    assert list(tmp_path.iterdir()) == [example.path]


def test_many_chunks_and_a_smaller_file(example: Example, monkeypatch) -> None:
    plain = example.write().stat().st_size
    example.path.unlink()
    monkeypatch.setattr("alexkit.features.compress.CHUNK_BYTES", 500)
    monkeypatch.setattr("alexkit.features.compress.BLOCK_BYTES", 1000)
    told: list[int] = []
    with example.create(compress=Compress.GZIP) as writer:
        example.fill(writer)
        writer.finish(None, told.append)
    assert told == sorted(told)
    assert told[-1] == example.count * (12 + 40) * 4
    with FeatureStore.open(example.path) as store:
        np.testing.assert_array_equal(
            store.values("fc7", example.good), example.values["fc7"][example.good]
        )
    assert example.path.stat().st_size < 3 * plain


def test_stopped_while_it_is_compressed(example: Example) -> None:
    def stop(done: int) -> None:
        raise Interrupted("stopped", hint="again")

    with example.create(compress=Compress.LZF) as writer:
        example.fill(writer)
        with pytest.raises(Interrupted):
            writer.finish({"ended": "today"}, stop)
    assert not example.path.exists()
    assert not copy_path(example.path).exists()
    with example.create(compress=Compress.LZF) as writer:
        assert not writer.pending().size
        writer.finish({"ended": "tomorrow"})
    with FeatureStore.open(example.path) as store:
        assert store.provenance["ended"] == "tomorrow"


def test_a_kill_between_the_name_and_the_removal(example: Example) -> None:
    example.write(compress=Compress.LZF)
    finished = example.path.read_bytes()
    example.path.rename(example.path.with_name("aside.h5"))
    example.write()
    example.path.rename(example.partial)  # the same rows, complete, under the other name
    example.path.with_name("aside.h5").rename(example.path)
    with pytest.raises(OutputExists):
        example.create(compress=Compress.LZF)
    assert not example.partial.exists()
    assert example.path.read_bytes() == finished


def test_the_partial_of_another_run_is_not_removed(example: Example) -> None:
    example.write()
    with example.create(overwrite=True, provenance={"fingerprint": {"weights": "other"}}):
        pass
    with pytest.raises(OutputExists):
        example.create()
    assert example.partial.exists()


def test_a_disk_that_has_no_room_for_the_copy(example: Example, small_disk: Path) -> None:
    small = Example(small_disk)
    with small.create(compress=Compress.GZIP) as writer:
        small.fill(writer)
        (small_disk / "other").write_bytes(
            b"x" * (2**21 - small.partial.stat().st_size - 20000)
        )
        with pytest.raises(OutOfSpace):
            writer.finish()
    assert partial_path(small.path).exists()
    (small_disk / "other").unlink()
    with small.create(compress=Compress.GZIP) as writer:
        writer.finish()
    with FeatureStore.open(small.path) as store:
        assert store.complete
