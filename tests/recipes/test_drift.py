"""What fast decoding does to features, measured on photos both large and small."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from alexkit.events import Event, Note
from alexkit.images.opening import open_source
from alexkit.images.preprocess import Preprocess
from alexkit.models.zoo import load_backbone
from alexkit.recipes import pack
from alexkit.recipes.drift import measure_drift
from alexkit.recipes.options import PackOptions
from tests.conftest import textured_rgb

FAST = Preprocess(decode="fast")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos of 1,100 × 1,500 pixels, two of 96 × 128, and one that is none."""
    for n in range(3):
        image = Image.fromarray(textured_rgb(n)).resize((1500, 1100), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"large{n}.jpg", quality=92)
    for n in range(2):
        Image.fromarray(textured_rgb(n)).save(tmp_path / f"small{n}.jpg")
    (tmp_path / "none.jpg").write_bytes(b"")
    return tmp_path


def test_drift_is_small_and_told(photos: Path) -> None:
    net = load_backbone("alexnet-owt", weights="random", seed=0).net.eval()
    told: list[Event] = []
    layers, cpu = ["conv1", "pool5"], torch.device("cpu")
    found = measure_drift(open_source(photos), net, layers, FAST, cpu, told.append)
    assert (found["looked_at"], found["smaller"]) == (5, 3)
    for layer in layers:
        shares = found["layers"][layer]
        assert 0 < shares["median"] <= shares["largest"] < 0.1
    (note,) = told
    assert isinstance(note, Note)
    assert "3 of 5 images looked at are decoded smaller; conv1 moves by" in note.text

    exact = measure_drift(open_source(photos), net, layers, Preprocess(), cpu, told.append)
    assert exact["smaller"] == 0
    assert all(shares["largest"] == 0 for shares in exact["layers"].values())


def test_small_photos_move_by_less_than_a_grey_level(photos: Path) -> None:
    for n in range(3):
        (photos / f"large{n}.jpg").unlink()
    net = load_backbone("alexnet-owt", weights="random", seed=0).net.eval()
    source = open_source(photos)
    found = measure_drift(source, net, ["conv1"], FAST, torch.device("cpu"), lambda _: None)
    assert (found["looked_at"], found["smaller"]) == (2, 0)
    assert 0 < found["layers"]["conv1"]["largest"] < 0.01


def test_a_pack_is_decoded_already(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "images.pack"
    pack.run(PackOptions(data=photos, out=out, size=8), lambda event: None)
    told: list[Event] = []
    net = load_backbone("alexnet-owt", weights="random", seed=0).net.eval()
    source = open_source(out)
    found = measure_drift(source, net, ["conv1"], FAST, torch.device("cpu"), told.append)
    assert found == {"looked_at": 0, "smaller": 0, "layers": {}}
    assert all(isinstance(event, Note) for event in told)
