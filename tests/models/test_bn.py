"""``alexnet-bn`` computes what its description says."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from alexkit.models import blocks
from alexkit.models.layered import initialise

GROUPS = {"conv2": 2, "conv4": 2, "conv5": 2}
POOLED = {"conv1": "pool1", "conv2": "pool2", "conv5": "pool5"}


@pytest.fixture(scope="module")
def net(make_net):
    return make_net("alexnet-bn")


def normed(p: dict[str, Tensor], layer: str, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5) * weight + bias, written out."""
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, var, weight, bias = (
        p[f"{layer}.bn.{name}"].reshape(shape)
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def test_every_layer_equals_the_description(net, make_images, difference) -> None:
    x = make_images(n=2)
    p = net.canonical_state_dict()
    h = F.pad(x, (0, 3, 0, 3))
    expected: dict[str, Tensor] = {}
    with torch.inference_mode():
        for layer in ("conv1", "conv2", "conv3", "conv4", "conv5"):
            how = (
                {"stride": 4} if layer == "conv1" else {"padding": 2 if layer == "conv2" else 1}
            )
            h = F.conv2d(h, p[f"{layer}.weight"], groups=GROUPS.get(layer, 1), **how)
            expected[f"{layer}:pre"] = normed(p, layer, h)
            expected[layer] = h = expected[f"{layer}:pre"].relu()
            if layer in POOLED:
                expected[POOLED[layer]] = h = F.max_pool2d(h, 3, 2)
        h = h.flatten(1)
        for layer in ("fc6", "fc7"):
            expected[f"{layer}:pre"] = normed(p, layer, h @ p[f"{layer}.weight"].T)
            expected[layer] = h = expected[f"{layer}:pre"].relu()
        expected["fc8"] = F.linear(h, p["fc8.weight"], p["fc8.bias"])
        got = net.taps(x, list(expected))
    assert max(difference(got[n], expected[n]) for n in expected) <= 1e-5


def test_initial_values_keep_the_size_of_activations(make_net, make_images) -> None:
    net = make_net("alexnet-bn")
    initialise(net, 0)
    state = net.canonical_state_dict()
    assert state["conv3.weight"].std().item() == pytest.approx(math.sqrt(2 / 2304), rel=0.02)
    assert set(state["conv3.bn.running_var"].tolist()) == {1.0}
    assert set(state["conv3.bn.running_mean"].tolist()) == {0.0}
    assert state["conv3.bn.num_batches_tracked"] == 0
    torch.manual_seed(0)
    logits = net.train()(make_images(n=8))
    assert 0.1 < logits.std().item() < 10
    logits.logsumexp(dim=1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net.canonical_state_dict()["fc7.bn.num_batches_tracked"] == 1


def test_a_batch_of_one_image_trains_on_the_running_statistics() -> None:
    norm = blocks.BatchNorm1d(4).train()
    norm.running_mean.fill_(1.0)
    out = norm(torch.full((1, 4), 3.0))
    assert torch.allclose(out, torch.full((1, 4), 2.0), atol=1e-4)
    assert int(norm.num_batches_tracked) == 0
    norm(torch.rand(2, 4))
    assert int(norm.num_batches_tracked) == 1
