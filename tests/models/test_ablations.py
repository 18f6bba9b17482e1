"""The paper's network with one thing left out, and batch norm's without fc6 and fc7."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from alexkit.choices import MODELS
from alexkit.models.heads import replace_head
from alexkit.models.specs import ABLATIONS, VARIANTS, find_spec
from alexkit.models.weights import write_weights
from alexkit.models.zoo import load_backbone

PARAMETERS = {
    "alexnet": 60_965_224,
    "alexnet-owt": 61_100_840,
    "alexnet-bn": 60_974_792,
    "bvlc-alexnet": 60_965_224,
    "caffenet": 60_965_224,
    # 60,965,224 in two towers; one tower as CHM's layers-145-half.cfg has it.
    **{f"alexnet-{word}": 60_965_224 for word in ABLATIONS},
    "alexnet-half": 59_798_312,
    # Convolutions without biases, their batch norm, and 256 values to 1,000 classes.
    "alexnet-bn-gap": 2_332_704 + 2 * (96 + 256 + 384 + 384 + 256) + 257_000,
}


@pytest.mark.parametrize("name", [*MODELS, *VARIANTS])
def test_parameters_are_those_of_the_source(name: str) -> None:
    net = find_spec(name).empty()
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
    assert net.layer_shapes()["pool5"] == (256, 6, 6)


def test_each_word_takes_away_what_it_says() -> None:
    shapes = {word: find_spec(f"alexnet-{word}").empty().layer_shapes() for word in ABLATIONS}
    assert "norm1" not in shapes["no-lrn"]
    assert "norm2" not in shapes["no-lrn"]
    assert shapes["no-overlap"]["pool1"] == (96, 28, 28)
    assert shapes["no-overlap"]["pool2"] == (256, 13, 13)
    assert shapes["half"]["conv4"] == (192, 13, 13)
    assert shapes["half"]["fc7"] == (4096,)
    pools = [m for m in find_spec("alexnet-bn-gap").empty().modules() if type(m) is nn.Linear]
    assert [m.in_features for m in pools] == [256]


def test_tanh_and_dropout(seeded: torch.Tensor) -> None:
    tanh = load_backbone("alexnet-tanh", "random", seed=0, num_classes=3).net.eval()
    values = tanh.taps(seeded, ["conv1:pre", "conv1"])
    assert torch.equal(values["conv1"], torch.tanh(values["conv1:pre"]))
    sure = load_backbone("alexnet-no-dropout", "random", seed=0, num_classes=3).net
    with torch.no_grad():
        assert torch.equal(sure.train()(seeded), sure.eval()(seeded))


def test_the_released_code_begins_conv3_to_conv5_wider() -> None:
    state = load_backbone("alexnet-code-145", "random", seed=0).net.canonical_state_dict()
    for layer, std in {"conv2": 0.01, "conv3": 0.03, "conv4": 0.03, "conv5": 0.03}.items():
        assert state[f"{layer}.weight"].std().item() == pytest.approx(std, rel=0.01)


@pytest.mark.parametrize("name", ["alexnet-half", "alexnet-tanh", "alexnet-bn-gap"])
def test_weights_make_the_same_network_again(
    name: str, tmp_path: Path, seeded: torch.Tensor
) -> None:
    made = load_backbone(name, "random", seed=0, num_classes=3)
    made.classes = ("a", "b", "c")
    write_weights(tmp_path / "w.safetensors", made.net.canonical_state_dict(), made.metadata())
    again = load_backbone(None, tmp_path / "w.safetensors", seed=0)
    assert again.spec.name == name
    with torch.no_grad():
        assert torch.equal(made.net.eval()(seeded), again.net.eval()(seeded))
    replace_head(again.net, 5, seed=0)
    assert again.net(seeded).shape == (1, 5)


def test_batch_norm_takes_smaller_images() -> None:
    net = load_backbone("alexnet-bn", "random", seed=0, num_classes=3).net.eval()
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 128, 128)).shape == (1, 3)


@pytest.fixture
def seeded() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return 50 * torch.randn(1, 3, 224, 224, generator=generator)
