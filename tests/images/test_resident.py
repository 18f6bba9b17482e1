"""A pack in the memory of a device gives the batches that reading it gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alexkit.cli.app import run
from alexkit.images.batches import read_batches
from alexkit.images.packed import PixelPack, open_pack
from alexkit.images.preprocess import Preprocess
from alexkit.images.resident import Budget, ResidentPixels, budget
from tests.conftest import photos_in

SMALL = Preprocess(resize=20, crop=16)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> PixelPack:
    folder = tmp_path_factory.mktemp("resident")
    photos_in(folder / "photos", {"train/ant": 5, "train/bee": 4})
    (folder / "photos" / "train" / "ant" / "bad.jpg").write_bytes(b"no image")
    out = folder / "small.pack"
    assert run(["pack", str(folder / "photos"), "--size", "20", "--out", str(out)]) == 0
    found = open_pack(out)
    assert isinstance(found, PixelPack)
    return found


@pytest.mark.parametrize("which", ["train_square", "square"])
def test_batches_are_those_that_are_read(pack: PixelPack, which: str) -> None:
    to_square = getattr(SMALL, which)
    rows = np.random.default_rng(0).permutation(len(pack))
    resident = ResidentPixels(pack, torch.device("cpu"))
    side = 16 if which == "square" else None
    found = list(resident.batches(rows, batch_size=4, side=side))
    read = list(read_batches(pack, rows, to_square, batch_size=4, threads=0, exif=False))
    assert len(found) == len(read) == 3
    for ours, theirs in zip(found, read, strict=True):
        assert (ours.rows == theirs.rows).all()
        assert torch.equal(ours.pixels, theirs.pixels)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.bad == theirs.bad
        assert ours.remarks == theirs.remarks
    assert sum(len(batch.bad) for batch in found) == 1


def test_only_what_leaves_room_for_the_work_is_taken(pack: PixelPack) -> None:
    assert Budget(needed=50, free=100).fits
    assert not Budget(needed=51, free=100).fits
    assert budget(pack, torch.device("cpu")) is None
