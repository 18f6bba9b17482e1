"""Weights of Caffe and ONNX files, against onnxruntime; the files are written here by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alexkit.errors import AlexkitError, DamagedFile, WeightsMismatch
from alexkit.models.specs import CAFFE_PREPROCESS
from alexkit.models.zoo import load_backbone
from tests.models.test_caffe import graph_with, run_onnx_graph

pytest.importorskip("google.protobuf", reason="the onnx extra is not installed")

BVLC = ("conv1", "norm1", "pool1", "conv2", "norm2", "pool2", "conv3", "conv4", "conv5")
CAFFENET = ("conv1", "pool1", "norm1", "conv2", "pool2", "norm2", "conv3", "conv4", "conv5")
CLASSIFIER = ("pool5", "fc6", "fc7", "fc8")
V1_TYPES = {"conv": 4, "fc": 14, "norm": 15, "pool": 17}
TYPES = {"conv": "Convolution", "fc": "InnerProduct", "norm": "LRN", "pool": "Pooling"}


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number: int, value: bytes | int | str) -> bytes:
    """A field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(tensor: Tensor, *, old: bool) -> bytes:
    """Old files give a vector or matrix four dimensions, the first ones 1."""
    data = field(5, np.ascontiguousarray(tensor.detach().numpy()).tobytes())
    if old:
        shape = (1,) * (4 - tensor.ndim) + tuple(tensor.shape)
        return b"".join(field(at, size) for at, size in enumerate(shape, 1)) + data
    return field(7, field(1, b"".join(map(varint, tensor.shape)))) + data


def caffemodel(
    name: str, layers: Sequence[str], state: Mapping[str, Tensor], *, old: bool
) -> bytes:
    out = field(1, name)
    for layer in layers:
        kind = next(k for k in TYPES if layer.startswith(k))
        tensors = [state[f"{layer}.{t}"] for t in ("weight", "bias") if kind in ("conv", "fc")]
        blobs = [blob(tensor, old=old) for tensor in tensors]
        if old:
            body = field(4, layer) + field(5, V1_TYPES[kind])
            out += field(2, body + b"".join(field(6, one) for one in blobs))
        else:
            body = field(1, layer) + field(2, TYPES[kind]) + field(3, "below")
            out += field(100, body + b"".join(field(7, one) for one in blobs))
    return out


def convolutions(make_net, name: str) -> dict[str, Tensor]:
    state = make_net(name, num_classes=2).canonical_state_dict()
    return {k: v for k, v in state.items() if k.startswith("conv")}


def test_published_files_give_onnxruntimes_probabilities(
    make_net, make_images, difference, tmp_path: Path
) -> None:
    """The old form of .caffemodel and the ONNX graph, with the same weights."""
    onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
    state = make_net("bvlc-alexnet").canonical_state_dict()
    weights = {name: t.numpy() for name, t in state.items()}
    image = make_images(224, n=1)
    expected = torch.from_numpy(run_onnx_graph(weights, image.numpy())["prob"])
    written = caffemodel("AlexNet", (*BVLC, *CLASSIFIER), state, old=True)
    (tmp_path / "bvlc_alexnet.caffemodel").write_bytes(written)
    onnx.save(graph_with(weights), tmp_path / "bvlc_alexnet.onnx")
    sides = {"bvlc_alexnet.caffemodel": 227, "bvlc_alexnet.onnx": 224}
    for name, side in sides.items():
        backbone = load_backbone(None, tmp_path / name, seed=0)
        assert (backbone.name, backbone.missing) == ("bvlc-alexnet", ())
        made = backbone.preprocess
        assert (made.channels, made.scale, made.mean) == ("BGR", 1.0, CAFFE_PREPROCESS.mean)
        assert made.crop == side
        assert backbone.net.layer_shapes()["pool1"][-1] == (27 if side == 227 else 26)
        with torch.inference_mode():
            got = backbone.net.eval().taps(image, ["prob"])["prob"]
        assert difference(got, expected.reshape(got.shape)) <= 1e-5


@pytest.mark.parametrize("old", [True, False], ids=["layers", "layer"])
@pytest.mark.parametrize(
    ("layers", "name"), [(BVLC, "bvlc-alexnet"), (CAFFENET, "caffenet")], ids=["a", "c"]
)
def test_the_order_of_layers_says_which_network(
    make_net, tmp_path: Path, layers: tuple[str, ...], name: str, old: bool
) -> None:
    state = convolutions(make_net, name)
    path = tmp_path / "x.caffemodel"
    path.write_bytes(caffemodel("x", (*layers, "pool5"), state, old=old))
    backbone = load_backbone(None, path, seed=0)
    assert backbone.name == name
    assert backbone.missing[0] == "fc6.weight"
    got = backbone.net.canonical_state_dict()
    assert all(torch.equal(got[key], tensor) for key, tensor in state.items())
    other = {"bvlc-alexnet": "caffenet", "caffenet": "bvlc-alexnet"}[name]
    with pytest.raises(WeightsMismatch, match=f"holds weights of {name}, not of {other}"):
        load_backbone(other, path, seed=0)


def test_other_networks_and_damage_are_named(make_net, tmp_path: Path) -> None:
    state = convolutions(make_net, "caffenet")
    whole = caffemodel("CaffeNet", CAFFENET, state, old=True)
    vgg = {"conv1_1.weight": torch.ones(64, 3, 3, 3), "conv1_1.bias": torch.ones(64)}
    foreign = caffemodel("VGG_16", ("conv1_1", "pool1"), vgg, old=True)
    plain = caffemodel("x", ("conv1", "conv2", "conv3"), state, old=False)
    size = struct.pack("<f", float(state["conv1.bias"][0]))
    cases: list[tuple[bytes, type[AlexkitError], str]] = [
        (foreign, WeightsMismatch, "'VGG_16' with the layers conv1_1, neither bvlc_alexnet"),
        (foreign.replace(b"conv1_1", b"conv\xff_1"), WeightsMismatch, "the layers b'conv"),
        (plain, WeightsMismatch, "no normalisation"),
        (whole[: len(whole) // 2], DamagedFile, "truncated, damaged or no .caffemodel"),
        (b"", DamagedFile, "no layer with weights"),
        (b"<!DOCTYPE html><html>", DamagedFile, "caffemodel"),
        (whole.replace(size, b"", 1), DamagedFile, "caffemodel"),
    ]
    for data, kind, said in cases:
        path = tmp_path / "x.caffemodel"
        path.write_bytes(data)
        with pytest.raises(kind, match=said) as caught:
            load_backbone(None, path, seed=0)
        assert caught.value.exit_status == 4


@pytest.mark.parametrize("data", [b"", b"no graph", b"\x08\x03\x12"], ids=repr)
def test_what_is_no_onnx_file_is_named(tmp_path: Path, data: bytes) -> None:
    pytest.importorskip("onnx", reason="the onnx extra is not installed")
    path = tmp_path / "x.onnx"
    path.write_bytes(data)
    with pytest.raises(DamagedFile, match=r"x\.onnx is damaged or no ONNX file"):
        load_backbone(None, path, seed=0)
