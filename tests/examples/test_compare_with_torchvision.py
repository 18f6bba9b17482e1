"""The scripts in examples/ do what their first lines say."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
import torch

from alexkit.cli.app import run
from alexkit.models.layered import initialise
from alexkit.models.specs import find_spec
from alexkit.models.weights import torchvision_names
from tests.conftest import photos_in

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LAYERS = ("conv1", "pool2", "conv5", "pool5", "fc6", "fc7", "fc8")


@pytest.fixture
def torchvision_weights(tmp_path: Path) -> Path:
    """A state dict of torchvision's alexnet with values that keep activations alive."""
    net = find_spec("alexnet-owt").empty().to_empty(device="cpu")
    initialise(net, seed=0)
    state = {
        name: tensor * (2.0 if tensor.ndim > 1 else 1.0)
        for name, tensor in torchvision_names(net.canonical_state_dict()).items()
    }
    torch.save(state, tmp_path / "alexnet.pth")
    return tmp_path / "alexnet.pth"


def test_features_equal_a_plain_torchvision_script(
    tmp_path: Path, torchvision_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photos_in(tmp_path / "photos", {"ant": 3, "bee": 3})
    words = ["features", "photos", "--weights", str(torchvision_weights), "--out", "F.h5"]
    assert run([*words, *(word for layer in LAYERS for word in ("--layer", layer))]) == 0
    compare = runpy.run_path(str(EXAMPLES / "compare_with_torchvision.py"))["main"]
    apart = compare(Path("F.h5"), torchvision_weights)
    assert apart.keys() == set(LAYERS)
    assert max(apart.values()) <= 1e-5
