"""A model's name and weights become a network that knows what it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor

from alexkit.choices import MODELS
from alexkit.errors import DamagedFile, UnknownName, UsageError, WeightsMismatch
from alexkit.images.preprocess import Preprocess
from alexkit.models.heads import replace_head
from alexkit.models.specs import SPECS, detect_models, find_spec
from alexkit.models.weights import read_state, torchvision_names, write_weights
from alexkit.models.zoo import Backbone, load_backbone

CLASSIFIER = tuple(f"fc{i}.{kind}" for i in (6, 7, 8) for kind in ("weight", "bias"))


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory, make_net) -> Path:
    """A file with torchvision's names and no classifier, as the published one without it."""
    path = tmp_path_factory.mktemp("partial") / "features.pth"
    net = make_net("alexnet-owt")
    net.cut("fc6")
    torch.save(torchvision_names(net.canonical_state_dict()), path)
    return path


def test_the_names_are_those_users_can_type() -> None:
    assert tuple(SPECS) == MODELS
    assert all(spec.name == name for name, spec in SPECS.items())
    with pytest.raises(UnknownName, match="alexnet-otw") as caught:
        find_spec("alexnet-otw")
    assert "did you mean alexnet-owt?" in caught.value.hint


@pytest.mark.parametrize("name", MODELS)
def test_specs_agree_with_their_networks(name: str) -> None:
    spec = SPECS[name]
    net = spec.empty(12)
    shapes = net.layer_shapes()
    assert shapes["fc8"] == (12,)
    assert spec.preprocess.crop == net.input_side
    assert set(spec.aliases.values()) <= shapes.keys()
    assert not spec.aliases.keys() & shapes.keys()
    assert all(p.is_meta for p in net.parameters()), "it must cost nothing"


def test_the_published_weights_and_their_preprocessing_are_torchvisions() -> None:
    weights = torchvision.models.AlexNet_Weights.IMAGENET1K_V1
    spec = SPECS["alexnet-owt"]
    assert spec.imagenet is not None
    assert spec.imagenet.url == weights.url
    assert spec.imagenet.sha256_prefix in weights.url
    preset = weights.transforms()
    assert spec.preprocess == Preprocess(
        resize=preset.resize_size[0],
        mode="short",
        interpolation=preset.interpolation.value,
        antialias=preset.antialias,
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        scale=1 / 255,
        channels="RGB",
        exif=False,
    )


def test_preprocessing_of_the_paper_and_of_caffe() -> None:
    paper, caffe = SPECS["alexnet"].preprocess, SPECS["bvlc-alexnet"].preprocess
    assert SPECS["caffenet"].preprocess == caffe
    assert (paper.resize, paper.mode, paper.crop, paper.channels) == (256, "short", 224, "RGB")
    assert (caffe.resize, caffe.mode, caffe.crop, caffe.channels) == (256, "squash", 227, "BGR")
    grey = torch.full((1, 2, 2, 3), 120, dtype=torch.uint8)
    grey[..., 0] = 250  # red
    expected = {
        "paper": [250 - 127.305, 120 - 119.715, 120 - 104.913],
        "caffe": [120 - 104.007, 120 - 116.669, 250 - 122.679],
    }
    for name, preprocess in {"paper": paper, "caffe": caffe}.items():
        got = preprocess.normalise(grey)[0, :, 0, 0]
        torch.testing.assert_close(got, torch.tensor(expected[name]), rtol=0, atol=1e-4)


def test_random_weights_follow_from_the_seed() -> None:
    first = load_backbone("alexnet-bn", "random", seed=1, num_classes=5)
    assert first.net.layer_shapes()["fc8"] == (5,)
    assert first.source == "random, seed 1"
    assert first.missing == first.classes == ()
    assert len(first.sha256) == 64
    assert load_backbone("alexnet-bn", "random", seed=1, num_classes=5).sha256 == first.sha256
    assert load_backbone("alexnet-bn", "random", seed=2, num_classes=5).sha256 != first.sha256


def test_weights_without_a_classifier(partial: Path, make_images) -> None:
    backbone = load_backbone(None, partial, seed=0)
    assert backbone.spec.name == "alexnet-owt"
    assert backbone.missing == CLASSIFIER
    assert backbone.resolve_layers(["conv1", "pool5", "conv5:pre"]) == [
        "conv1",
        "pool5",
        "conv5:pre",
    ]
    assert backbone.net.taps(make_images(n=1), ["pool5"])["pool5"].shape == (1, 256, 6, 6)
    for name in ("fc7", "classifier.4", "prob", "fc6:pre"):
        with pytest.raises(WeightsMismatch, match=f"layer {name} needs") as caught:
            backbone.resolve_layers(["conv1", name])
        assert all(tensor in caught.value.message for tensor in CLASSIFIER)
        assert caught.value.exit_status == 4
        assert "pool5" in caught.value.hint
    with pytest.raises(UnknownName):
        backbone.resolve_layers(["fc9"])


def test_the_real_convolutions(real_data: Path) -> None:
    path = real_data / "weights" / "alexnet-torchvision-features.pth"
    backbone = load_backbone(None, path, seed=0)
    assert (backbone.spec.name, backbone.source) == ("alexnet-owt", str(path))
    assert backbone.missing == CLASSIFIER
    theirs = torch.load(path, weights_only=True)
    assert torch.equal(backbone.net.conv3.weight, theirs["features.6.weight"])
    with pytest.raises(WeightsMismatch, match=r"fc6\.weight.*fc8\.bias"):
        backbone.resolve_layers(["fc7"])


def test_another_network_is_refused_with_its_tensors_named(real_data: Path) -> None:
    path = real_data / "weights" / "squeezenet1_0-caffe-deepcompressed.pth"
    with pytest.raises(WeightsMismatch, match="none of the networks known here"):
        load_backbone(None, path, seed=0)
    with pytest.raises(WeightsMismatch, match=r"does not fit alexnet: missing conv2\.weight"):
        load_backbone("alexnet", path, seed=0)


def test_layer_names_and_their_aliases() -> None:
    backbone = load_backbone("alexnet-owt", "random", seed=0, num_classes=2)
    asked = ["classifier.4", "fc7:pre", "features.8", "prob", "features.2", "pool1"]
    assert backbone.resolve_layers(asked) == ["fc7:pre", "conv4:pre", "prob", "pool1"]
    with pytest.raises(UnknownName, match="cov5") as caught:
        backbone.resolve_layers(["cov5"])
    assert "did you mean conv5?" in caught.value.hint
    assert "pool5" in caught.value.hint
    backbone.spec = SPECS["caffenet"]
    assert backbone.resolve_layers(["relu6", "relu2"]) == ["fc6", "conv2"]


def saved(backbone: Backbone, path: Path, **changes: str | None) -> Path:
    metadata = backbone.metadata() | changes
    kept = {name: value for name, value in metadata.items() if value is not None}
    write_weights(path, backbone.net.canonical_state_dict(), kept)
    return path


@pytest.mark.parametrize("at", ["fc7", "pool5"])
def test_weight_files_say_what_they_are(tmp_path: Path, make_images, at: str) -> None:
    made = load_backbone("caffenet", "random", seed=0, num_classes=9)
    replace_head(made.net, 3, seed=1, at=at)
    made.classes = ("b", "ä", "c d")
    made.preprocess = Preprocess(resize=300, crop=227, exif=True)
    path = saved(made, tmp_path / "best.safetensors")
    got = load_backbone(None, path, seed=0)
    assert got.spec is made.spec
    assert got.classes == ("b", "ä", "c d")
    assert got.preprocess == made.preprocess
    assert got.missing == (() if at == "fc7" else CLASSIFIER[:4])
    x = make_images(227, n=1)
    with torch.inference_mode():
        assert torch.equal(got.net.eval()(x), made.net.eval()(x))
    if at == "pool5":
        with pytest.raises(WeightsMismatch, match=r"fc6\.weight"):
            got.resolve_layers(["fc6"])
    with pytest.raises(WeightsMismatch, match="weights of caffenet, not of alexnet"):
        load_backbone("alexnet", path, seed=0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "resnet"}, "'resnet', which is not known"),
        ({"format_version": "2"}, "format 2, not 1"),
        ({"classes": None}, "does not describe"),
        ({"classes": "{"}, "does not describe"),
        ({"classes": '"ab"'}, "no list of class names"),
        ({"classes": '["a", "b", "c"]'}, "3 classes for 2 outputs"),
        ({"preprocess": "[]"}, "no preprocessing record"),
        ({"preprocess": '{"resize": 256}'}, "missing or unknown fields"),
    ],
    ids=["model", "version", "no classes", "no JSON", "text", "count", "no record", "fields"],
)
def test_metadata_that_was_edited(tmp_path: Path, partial: Path, changes, said: str) -> None:
    made = load_backbone(None, partial, seed=0)
    replace_head(made.net, 2, seed=0)
    made.classes = ("a", "b")
    assert load_backbone(None, saved(made, tmp_path / "good"), seed=0).classes == ("a", "b")
    with pytest.raises(DamagedFile, match=said):
        load_backbone(None, saved(made, tmp_path / "bad", **changes), seed=0)


def test_metadata_of_other_programs_is_not_ours(tmp_path: Path, partial: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_weights(path, read_state(partial)[0], {"format": "pt", "classes": "whatever"})
    backbone = load_backbone(None, path, seed=0)
    assert backbone.classes == ()
    assert backbone.preprocess == SPECS["alexnet-owt"].preprocess


@pytest.mark.parametrize("name", MODELS)
def test_models_are_told_by_their_tensors(name: str) -> None:
    twins = ["alexnet", "bvlc-alexnet", "caffenet"]
    expected = twins if name in twins else [name]
    whole = SPECS[name].empty(7).canonical_state_dict()
    assert detect_models(whole) == expected
    convolutions = {n: t for n, t in whole.items() if n.startswith("conv")}
    assert detect_models(convolutions) == expected
    assert detect_models({n: t for n, t in whole.items() if n.startswith("fc")}) == []


def test_weights_of_several_networks_want_a_name(tmp_path: Path, make_net) -> None:
    net = make_net("bvlc-alexnet")
    net.cut("fc6")
    state = {f"{n.replace('.', '_')[:7]}_0": t for n, t in net.canonical_state_dict().items()}
    assert "conv1_w_0" in state
    path = tmp_path / "caffe.pth"
    torch.save(state, path)
    with pytest.raises(UsageError, match="fit several networks") as caught:
        load_backbone(None, path, seed=0)
    assert "alexnet, bvlc-alexnet, caffenet" in caught.value.hint
    assert load_backbone("bvlc-alexnet", path, seed=0).missing == CLASSIFIER
    with pytest.raises(WeightsMismatch, match="does not fit alexnet-bn"):
        load_backbone("alexnet-bn", path, seed=0)


@pytest.mark.parametrize(
    ("model", "weights", "kind"),
    [
        ("alexnet", "imagenet", UsageError),
        (None, "random", UsageError),
        ("vgg61", "random", UnknownName),
    ],
)
def test_what_cannot_be_meant(
    model: str | None, weights: str, kind: Callable[..., Exception]
) -> None:
    with pytest.raises(kind):  # type: ignore[call-overload]
        load_backbone(model, weights, seed=0)


def test_towers_may_be_loaded_onto_two_slots() -> None:
    backbone = load_backbone(
        "alexnet", "random", seed=0, num_classes=2, devices=[torch.device("cpu")] * 2
    )
    assert backbone.net.slots == (torch.device("cpu"), torch.device("cpu"))
    state: dict[str, Tensor] = backbone.net.canonical_state_dict()
    assert json.loads(backbone.metadata()["classes"]) == []
    assert state["fc8.weight"].shape == (2, 4096)
