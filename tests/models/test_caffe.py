"""Caffe's networks against an independent graph, run by an independent engine."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F

from alexkit.models.layered import LayeredNet, initialise
from alexkit.models.weights import canonical_name

LOG = logging.getLogger(__name__)  # figures: pytest --log-cli-level=INFO

ONNX_LAYERS = {
    "r0": "conv1:pre",
    "r1": "conv1",
    "r2": "norm1",
    "r3": "pool1",
    "r4": "conv2:pre",
    "r5": "conv2",
    "r6": "norm2",
    "r7": "pool2",
    "r8": "conv3:pre",
    "r9": "conv3",
    "r10": "conv4:pre",
    "r11": "conv4",
    "r12": "conv5:pre",
    "r13": "conv5",
    "r14": "pool5",
    "r16": "fc6:pre",
    "r17": "fc6",
    "r20": "fc7:pre",
    "r21": "fc7",
    "r24": "fc8",
    "prob_1": "prob",
}
"""Values of ``light_bvlc_alexnet.onnx`` and the layers they are."""


def graph_with(weights: dict[str, npt.NDArray[np.float32]]) -> Any:
    """The graph inside the onnx package, with ``weights`` and an output for every layer."""
    onnx = pytest.importorskip("onnx", reason="the onnx extra is not installed")
    light = Path(onnx.__file__).parent / "backend/test/data/light/light_bvlc_alexnet.onnx"
    if not light.is_file():
        pytest.skip(f"this onnx has no {light.name}")
    model = onnx.load(light)
    graph = model.graph
    # The graph fills its weights with a constant: ours in their place.
    kept = [node for node in graph.node if node.op_type != "ConstantOfShape"]
    filled = {node.output[0] for node in graph.node if node.op_type == "ConstantOfShape"}
    del graph.node[:]
    graph.node.extend(kept)
    theirs = {canonical_name(name): name for name in filled}
    assert theirs.keys() == weights.keys()
    for name, tensor in weights.items():
        graph.initializer.append(onnx.numpy_helper.from_array(tensor, theirs[name]))
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in ONNX_LAYERS)
    model.ir_version = 8  # from 4 on, weights need not be inputs too
    return model


def run_onnx_graph(
    weights: dict[str, npt.NDArray[np.float32]], image: npt.NDArray[np.float32]
) -> dict[str, npt.NDArray[np.float32]]:
    """Every layer of the graph inside the onnx package, by our names."""
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    model = graph_with(weights)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run(list(ONNX_LAYERS), {"data_0": image})
    return dict(zip(ONNX_LAYERS.values(), values, strict=True))


def test_every_layer_equals_onnxruntimes(make_net, make_images, difference) -> None:
    net = make_net("bvlc-alexnet")
    x = make_images(224, n=1)
    weights = {name: t.numpy() for name, t in net.canonical_state_dict().items()}
    expected = run_onnx_graph(weights, x.numpy())
    with torch.inference_mode():
        got = net.taps(x, list(net.layer_shapes()))
    assert got.keys() == expected.keys(), "every layer has a counterpart"
    figures = {
        name: difference(tensor, torch.from_numpy(expected[name]).reshape(tensor.shape))
        for name, tensor in got.items()
    }
    LOG.info("largest relative difference %.1e", max(figures.values()))
    assert got["pool2"].shape[-1] == 12, "224 pixels: 54, 26, 12, then a padded pooling to 6"
    assert max(figures.values()) <= 1e-5, figures
    # Its logits lie far apart, so that softmax alone would hide nearly everything.
    assert got["fc8"].std() > 1


def test_caffenet_pools_before_it_normalises(make_net, make_images, difference) -> None:
    net = make_net("caffenet")
    with torch.inference_mode():
        got = net.taps(make_images(227, n=1), list(net.layer_shapes()))
        for block in ("1", "2"):
            pooled = F.max_pool2d(got[f"conv{block}"], 3, 2)
            normed = F.local_response_norm(pooled, 5, alpha=1e-4, beta=0.75, k=1.0)
            assert torch.equal(got[f"pool{block}"], pooled)
            assert difference(got[f"norm{block}"], normed) <= 1e-6
        conv2, conv3 = net.conv2, net.conv3
        after = F.conv2d(got["norm1"], conv2.weight, conv2.bias, padding=2, groups=2)
        assert difference(got["conv2:pre"], after) <= 1e-6
        after = F.conv2d(got["norm2"], conv3.weight, conv3.bias, padding=1)
        assert difference(got["conv3:pre"], after) <= 1e-6


@pytest.mark.parametrize(("name", "positive"), [("bvlc-alexnet", 0.1), ("caffenet", 1.0)])
def test_initial_values_are_caffes(make_net, name: str, positive: float) -> None:
    net: LayeredNet = make_net(name)
    initialise(net, 0)
    for tensor_name, tensor in net.canonical_state_dict().items():
        layer, kind = tensor_name.split(".")
        if kind == "weight":
            std = 0.005 if layer in ("fc6", "fc7") else 0.01
            assert tensor.std().item() == pytest.approx(std, rel=0.02), tensor_name
        else:
            bias = 0.0 if layer in ("conv1", "conv3", "fc8") else positive
            assert torch.equal(tensor, torch.full_like(tensor, bias)), tensor_name
