"""A network for other programs gives the same probabilities there, or is not written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from alexkit import predict
from alexkit.cli.app import run
from alexkit.images.preprocess import Preprocess
from alexkit.models.records import describe
from alexkit.models.weights import write_weights
from alexkit.recipes import export_network
from tests.conftest import Capsys, photos_in
from tests.recipes.test_predict import CLASSES, NET, network

BACKWARDS = Preprocess(channels="BGR", scale=1.0, mean=(104.0, 117.0, 123.0), std=(1, 1, 2))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    photos_in(folder / "photos", dict.fromkeys(CLASSES, 2))
    told = describe(NET, CLASSES, BACKWARDS)
    write_weights(folder / "net.safetensors", network().state_dict(), told)
    return folder


def exported(place: Path, out: str, *words: str) -> int:
    paths = [str(place / "net.safetensors"), "--data", str(place / "photos")]
    return run(["export", *paths, "--out", str(place / out), *words])


def test_onnx_with_its_preprocessing_inside_says_what_predict_says(
    place: Path, capsys: Capsys
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    assert exported(place, "pixels.onnx", "--input", "pixels") == 0, capsys.readouterr()
    session = runtime.InferenceSession(place / "pixels.onnx")
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(CLASSES)
    sidecar = json.loads((place / "pixels.onnx.json").read_text())
    assert sidecar["classes"] == list(CLASSES)
    assert sidecar["checked"]["images"] == 6
    assert sidecar["preprocess"]["channels"] == "BGR"
    found = predict(place / "photos", place / "net.safetensors", top=3)
    squares = np.stack(
        [BACKWARDS.square(np.asarray(Image.open(one.path).convert("RGB"))) for one in found]
    )
    for some in (squares, squares[:1]):  # any number of images
        _, probabilities = session.run(None, {"image": some})
        for one, p in zip(found, probabilities, strict=False):
            named = dict(zip(CLASSES, p.tolist(), strict=True))
            assert named == pytest.approx(
                dict(zip(one.classes, one.values, strict=True)), abs=1e-5
            )
    assert exported(place, "pixels.onnx", "--input", "pixels") == 2
    assert "pixels.onnx exists" in capsys.readouterr().err


def test_a_state_dict_is_torchvisions(place: Path, capsys: Capsys) -> None:
    assert exported(place, "net.pth") == 0, capsys.readouterr()
    net = torchvision.models.get_model(NET, num_classes=3)
    net.load_state_dict(torch.load(place / "net.pth", weights_only=True))
    assert json.loads((place / "net.pth.json").read_text())["form"].endswith(NET)
    for words, said in [
        (("net.npz",), "in no format known here for a network"),
        (("net2.pth", "--input", "pixels"), "--input pixels is for ONNX"),
        (("net2.pth", "--layer", "fc7"), "--layer is for feature files"),
    ]:
        assert exported(place, *words) == 2
        assert said in capsys.readouterr().err


def test_a_file_that_says_otherwise_is_not_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(export_network, "TOLERANCE", -1.0)  # what nothing reaches
    before = sorted(place.iterdir())
    assert exported(place, "other.pth") == 4
    assert "gives other probabilities" in capsys.readouterr().err
    assert sorted(place.iterdir()) == before


def test_a_full_disk_is_told_as_what_it_is(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space left"):
        export_network.write_pth(small_disk / "net.pth", {"w": torch.zeros(2**20)})
