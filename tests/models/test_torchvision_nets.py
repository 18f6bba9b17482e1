"""torchvision's networks: their nodes as layers, and nothing overwritten in place."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from alexkit.errors import DamagedFile, UnknownName, WeightsMismatch
from alexkit.images.preprocess import Preprocess
from alexkit.models import torchvision_nets
from alexkit.models.torchvision_nets import TorchvisionBackbone, load_torchvision
from alexkit.models.weights import write_weights
from alexkit.models.zoo import load_any, load_backbone, skeleton


def random_net(name: str) -> TorchvisionBackbone:
    backbone = load_torchvision(name, "random", seed=1)
    backbone.net.eval()
    return backbone


def images(side: int, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, 3, side, side, generator=generator)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "mobilenet_v3_small"])
@torch.inference_mode()
def test_all_nodes_in_one_pass_are_what_each_is_alone(name: str) -> None:
    """ReLU in place, as a module (resnet) or as a function (googlenet), would show."""
    net = random_net(name).net
    names = list(net.layer_shapes())
    x = images(64)
    together = net.taps(x, names)
    assert list(together) == names
    for layer in names[3 :: len(names) // 4]:
        assert torch.equal(together[layer], net.taps(x, [layer])[layer]), layer
    logits = [node for node in names if together[node].shape == (2, 1000)][-1]
    assert torch.equal(net(x), together[logits])


@torch.inference_mode()
def test_values_before_a_relu_are_what_the_module_itself_gives() -> None:
    backbone = random_net("resnet18")
    network, x = backbone.net.network, images(64)
    seen = {}
    hooks = [
        network.bn1.register_forward_hook(lambda *call: seen.update(bn1=call[2].clone())),
        network.layer4[1].register_forward_hook(lambda *call: seen.update(block=call[2])),
    ]
    network(x)
    for hook in hooks:
        hook.remove()  # they would be traced too
    assert (seen["bn1"] < 0).any()
    taps = backbone.net.taps(x, ["bn1", "relu", "layer4", "layer4.1", "layer4.1.relu_1"])
    assert torch.equal(taps["bn1"], seen["bn1"])
    assert torch.equal(taps["relu"], seen["bn1"].relu())
    for name in ("layer4", "layer4.1", "layer4.1.relu_1"):
        assert torch.equal(taps[name], seen["block"])


@torch.inference_mode()
def test_shapes_are_those_of_the_values() -> None:
    for name in ("squeezenet1_1", "vit_b_32"):
        backbone = random_net(name)
        shapes = backbone.net.layer_shapes()
        taps = backbone.net.taps(images(224, 1), list(shapes))
        assert {layer: tuple(tap.shape[1:]) for layer, tap in taps.items()} == shapes


def test_modules_are_told_beside_their_last_node() -> None:
    backbone = skeleton("resnet18")
    assert isinstance(backbone, TorchvisionBackbone)
    assert backbone.layer_aliases()["layer4.1.relu_1"] == ["layer4.1", "layer4"]
    assert backbone.net.layer_shapes()["layer4"] == (512, 7, 7)
    assert backbone.resolve_layers(["layer4", "fc", "layer4"]) == ["layer4", "fc"]
    assert next(backbone.net.parameters()).is_meta, "nothing is computed or fetched"


def test_a_typing_error_is_told_with_near_names() -> None:
    with pytest.raises(UnknownName, match="no layer of resnet18") as caught:
        skeleton("resnet18").resolve_layers(["layer4.1.relu1"])
    assert "layer4.1.relu_1" in caught.value.hint
    assert "alexkit features --model resnet18 --list-layers" in caught.value.hint
    with pytest.raises(UnknownName, match="'resnet5'") as caught:
        load_any("resnet5", "random", seed=0)
    assert "did you mean resnet" in caught.value.hint


def test_our_names_come_before_torchvisions() -> None:
    assert load_any("alexnet-bn", "random", seed=0).name == "alexnet-bn"
    assert "norm1" in skeleton("alexnet").net.layer_shapes()


def test_random_weights_follow_from_the_seed() -> None:
    before = torch.random.get_rng_state()
    first = load_torchvision("squeezenet1_1", "random", seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert load_torchvision("squeezenet1_1", "random", seed=1).sha256 == first.sha256
    assert load_torchvision("squeezenet1_1", "random", seed=2).sha256 != first.sha256


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", Preprocess(resize=232)),
        ("inception_v3", Preprocess(resize=342, crop=299)),
        ("efficientnet_b1", Preprocess(resize=255, crop=240)),
        ("vit_h_14", Preprocess(resize=518, crop=518, interpolation="bicubic")),
    ],
)
def test_preprocessing_is_that_of_the_published_weights(
    name: str, expected: Preprocess
) -> None:
    assert skeleton(name).preprocess == expected


@torch.inference_mode()
def test_a_state_dict_of_other_classes(tmp_path: Path) -> None:
    torch.manual_seed(3)
    made = torchvision.models.googlenet(num_classes=7, aux_logits=False, init_weights=False)
    torch.save(made.state_dict(), tmp_path / "made.pth")
    backbone = load_torchvision("googlenet", tmp_path / "made.pth", seed=0)
    digest = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()
    assert backbone.sha256 == digest
    made.eval().transform_input = True  # as torchvision sets it with its own weights
    backbone.net.eval()
    assert torch.equal(backbone.net(images(64)), made(images(64)))
    assert backbone.net.taps(images(64), ["fc"])["fc"].shape == (2, 7)


def test_old_files_lack_what_only_training_reads(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(num_classes=3).state_dict()
    old = {key: value for key, value in state.items() if "num_batches" not in key}
    torch.save(old, tmp_path / "old.pth")
    backbone = load_torchvision("resnet18", tmp_path / "old.pth", seed=0)
    assert torch.equal(backbone.net.network.fc.weight, state["fc.weight"])


def test_weights_of_another_network(tmp_path: Path) -> None:
    state = torchvision.models.resnet18(num_classes=3).state_dict()
    torch.save(state, tmp_path / "r18.pth")
    with pytest.raises(WeightsMismatch, match=r"does not fit resnet34: missing layer1\.2"):
        load_torchvision("resnet34", tmp_path / "r18.pth", seed=0)
    with pytest.raises(WeightsMismatch, match=r"does not fit squeezenet1_1: missing"):
        load_torchvision("squeezenet1_1", tmp_path / "r18.pth", seed=0)
    (tmp_path / "cut.pth").write_bytes((tmp_path / "r18.pth").read_bytes()[:1000])
    with pytest.raises(DamagedFile):
        load_torchvision("resnet18", tmp_path / "cut.pth", seed=0)


def test_imagenet_is_fetched_and_its_hash_checked(tmp_path: Path, monkeypatch) -> None:
    """From the cache that torchvision uses; the file in it is one of ours here, so its hash
    is put where torchvision has the published one."""
    state = torchvision.models.squeezenet1_1(num_classes=4).state_dict()
    (tmp_path / "checkpoints").mkdir()
    torch.save(state, tmp_path / "made.pth")
    digest = hashlib.sha256((tmp_path / "made.pth").read_bytes()).hexdigest()
    name = f"squeezenet1_1-{digest[:8]}.pth"
    (tmp_path / "made.pth").rename(tmp_path / "checkpoints" / name)
    published = torchvision.models.get_model_weights("squeezenet1_1").DEFAULT

    class Here:
        url = f"http://127.0.0.1:9/{name}"
        transforms = published.transforms

    monkeypatch.setattr(torchvision_nets, "_published", lambda name: Here)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    backbone = load_torchvision("squeezenet1_1", "imagenet", seed=0)
    assert backbone.sha256 == digest
    assert backbone.source.endswith(name)


def test_the_real_squeezenet(real_data: Path) -> None:
    """The SqueezeNet 1.0 of its authors has torchvision's tensors."""
    path = real_data / "weights" / "squeezenet1_0-caffe-deepcompressed.pth"
    backbone = load_any("squeezenet1_0", path, seed=0)
    assert backbone.net.layer_shapes()["features.12.cat"] == (512, 13, 13)
    with pytest.raises(WeightsMismatch):
        load_backbone(None, path, seed=0)


def test_a_file_of_ours_names_network_classes_and_preprocessing(tmp_path: Path) -> None:
    backbone = random_net("squeezenet1_1")
    backbone.classes = tuple(f"class {i:03d}" for i in range(1000))
    backbone.preprocess = Preprocess(resize=250, exif=True)
    path = tmp_path / "best.safetensors"
    sha256 = write_weights(path, backbone.net.canonical_state_dict(), backbone.metadata())
    again = load_any(None, path, seed=0)
    assert (again.name, again.sha256) == ("squeezenet1_1", sha256)
    assert (again.classes, again.preprocess) == (backbone.classes, backbone.preprocess)
    with torch.inference_mode():
        assert torch.equal(again.net.eval()(images(64)), backbone.net(images(64)))
    with pytest.raises(WeightsMismatch, match="holds weights of squeezenet1_1, not of vgg11"):
        load_any("vgg11", path, seed=0)
    state = backbone.net.canonical_state_dict()
    write_weights(path, state, {**backbone.metadata(), "classes": '["one", "two"]'})
    with pytest.raises(DamagedFile, match="names 2 classes for 1000 outputs"):
        load_any(None, path, seed=0)
    write_weights(path, state, {**backbone.metadata(), "model": "squeezenet9"})
    with pytest.raises(DamagedFile, match="called 'squeezenet9', which is not known here"):
        load_any(None, path, seed=0)


def test_imagenets_names_are_no_two_alike() -> None:
    names = torchvision_nets.imagenet_names()
    assert (len(set(names)), names[0], names[999]) == (1000, "tench", "toilet tissue")
