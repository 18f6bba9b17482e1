"""ONNX files of ours are read again, whatever the exporter made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from alexkit.errors import DamagedFile, WeightsMismatch
from alexkit.images.preprocess import Preprocess
from alexkit.models.heads import attach_head
from alexkit.models.onnx_files import read_onnx, write_onnx
from alexkit.models.records import describe
from alexkit.models.specs import SPECS
from alexkit.models.zoo import load_any, load_backbone


@pytest.fixture(autouse=True)
def _the_extra() -> None:
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module, reason="the onnx extra is not installed")


def written(path: Path, name: str, net: nn.Module, preprocess: Preprocess) -> Path:
    write_onnx(path, net, preprocess, describe(name, ("ant", "bee"), preprocess), pixels=False)
    return path


@pytest.mark.parametrize("name", ["alexnet-owt", "bvlc-alexnet"])
def test_biases_of_zero_are_read_again(make_net, tmp_path: Path, name: str) -> None:
    net = make_net(name, num_classes=2)
    nn.init.normal_(attach_head(net, 2, at="pool5").weight)
    with torch.no_grad():
        net.fc8.bias.zero_()
        net.conv3.bias.zero_()
    path = written(tmp_path / "net.onnx", name, net, SPECS[name].preprocess)
    graph = pytest.importorskip("onnx").load(path).graph
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param, "of any number of images"
    again = load_backbone(None, path, seed=0)
    assert (again.name, again.classes) == (name, ("ant", "bee"))
    want = net.canonical_state_dict()
    got = again.net.canonical_state_dict()
    assert got.keys() == want.keys()
    assert all(torch.equal(got[key], tensor) for key, tensor in want.items())


def test_a_network_of_torchvision_is_read_by_its_own_names(tmp_path: Path) -> None:
    net = load_any("squeezenet1_1", "random", seed=0)
    path = written(tmp_path / "net.onnx", net.name, net.net, net.preprocess)
    want = net.net.canonical_state_dict()  # its biases begin at 0
    tensors, _ = read_onnx(path)
    own = {key: tensor for key, tensor in tensors.items() if key in want}
    assert own.keys() == want.keys()
    plain = torchvision.models.get_model(net.name)
    plain.load_state_dict(own)
    assert all(torch.equal(t, want[key]) for key, t in plain.state_dict().items())


def with_its_tensor_in(location: str, length: str = "length") -> bytes:
    """A graph whose only tensor, four float32, lies in another file."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx.numpy_helper.from_array(np.ones(4, "f4"), "conv1.bias")
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), (length, "16")):
        tensor.external_data.add(key=key, value=value)
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [], [], [tensor])
    return bytes(onnx.helper.make_model(graph).SerializeToString())


def test_no_tensor_is_read_from_outside_of_the_files_folder(tmp_path: Path) -> None:
    place = tmp_path / "in" / "x.onnx"
    place.parent.mkdir()
    for folder in (tmp_path, place.parent):
        (folder / "values").write_bytes(b"\0" * 16)
    place.write_bytes(with_its_tensor_in("values"))
    assert read_onnx(place)[0]["conv1.bias"].tolist() == [0.0] * 4
    for outside in ("../values", str(tmp_path / "values")):
        # The library warns of a key that it does not know.
        for data in (with_its_tensor_in(outside), with_its_tensor_in(outside, "lengtH")):
            place.write_bytes(data)
            with pytest.raises(DamagedFile, match=r"x\.onnx is damaged or no ONNX file"):
                read_onnx(place)


def test_metadata_that_are_no_text_are_damage(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    model.metadata_props.add(key="qqqq", value="v")
    place = tmp_path / "x.onnx"
    place.write_bytes(model.SerializeToString().replace(b"qqqq", b"\xe1qqq"))
    with pytest.raises(DamagedFile, match=r"x\.onnx is damaged or no ONNX file"):
        read_onnx(place)


def test_folded_batch_norm_is_told(make_net, tmp_path: Path) -> None:
    net = make_net("alexnet-bn", num_classes=2)
    attach_head(net, 2, at="pool5")
    nn.init.ones_(net.fc8.weight)
    nn.init.ones_(net.fc8.bias)
    path = written(tmp_path / "net.onnx", "alexnet-bn", net, SPECS["alexnet-bn"].preprocess)
    with pytest.raises(WeightsMismatch, match=r"missing conv1\.bn\.weight") as caught:
        load_backbone(None, path, seed=0)
    assert "batch norm folded" in caught.value.hint
