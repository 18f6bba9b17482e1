"""New classifiers, frozen layers and the rates that apply."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from alexkit.models.heads import LOWEST, freeze_through, rates_by_depth, replace_head
from alexkit.models.specs import SPECS


@pytest.fixture(params=["alexnet", "alexnet-owt"], ids=["two towers", "one tower"])
def net(request: pytest.FixtureRequest, make_net):
    return make_net(request.param)


def test_a_new_fc8_reads_fc7(net, make_images) -> None:
    x = make_images(n=2)
    names = list(net.layer_shapes())
    with torch.inference_mode():
        before = net.taps(x, ["fc7"])["fc7"]
    replace_head(net, 7, seed=3)
    assert list(net.layer_shapes()) == names
    assert net.layer_shapes()["fc8"] == (7,)
    with torch.inference_mode():
        assert torch.equal(net.taps(x, ["fc7"])["fc7"], before)
        assert net(x).shape == (2, 7)
    weight = net.fc8.weight.detach().clone()
    assert weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert not net.fc8.bias.any()
    replace_head(net, 7, seed=3)
    assert torch.equal(net.fc8.weight, weight)
    replace_head(net, 7, seed=4)
    assert not torch.equal(net.fc8.weight, weight)


@pytest.mark.parametrize(
    "cut_first", [True, False], ids=["no classifier", "classifier dropped"]
)
def test_a_linear_layer_on_pool5(net, make_images, difference, cut_first) -> None:
    x = make_images(n=2)
    if cut_first:
        net.cut("fc6")
        replace_head(net, 4, seed=0)
    else:
        replace_head(net, 4, seed=0, at="pool5")
    assert list(net.layer_shapes())[-3:] == ["pool5", "fc8", "prob"]
    state = net.canonical_state_dict()
    assert tuple(state["fc8.weight"].shape) == (4, 9216)
    assert not [name for name in state if name.startswith(("fc6", "fc7"))]
    assert not state["fc8.weight"].any()
    torch.nn.init.normal_(net.fc8.weight, generator=torch.Generator().manual_seed(0))
    net.train()
    pool5 = net.taps(x, ["pool5"])["pool5"].flatten(1)
    expected = F.linear(pool5, state["fc8.weight"], state["fc8.bias"])
    assert difference(net(x), expected) <= 1e-5


@pytest.mark.parametrize("after", [None, "conv4", "conv5", "pool5", "fc6", "fc7"])
@pytest.mark.parametrize("name", ["alexnet", "alexnet-bn"])
def test_frozen_layers_are_those_up_to_the_name(name: str, after: str | None) -> None:
    net = SPECS[name].empty(5)
    freeze_through(net, "fc7")
    freeze_through(net, after)
    order = ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"]
    last = "conv5" if after == "pool5" else after
    frozen = 0 if last is None else order.index(last) + 1
    trains = {
        (net.canonical_name(name).split(".")[0], parameter.requires_grad)
        for name, parameter in net.named_parameters()
    }
    assert trains == {(layer, at >= frozen) for at, layer in enumerate(order)}


def test_a_step_moves_what_is_not_frozen_and_nothing_else(make_net, make_images) -> None:
    net = make_net("alexnet-bn", num_classes=3)
    freeze_through(net, "fc6")
    net.train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    optimizer = torch.optim.SGD(rates_by_depth(net, "fc8", 10.0), lr=0.1)
    F.cross_entropy(net(make_images(n=4)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    moved = {
        n.split(".")[0] for n, t in net.state_dict().items() if not torch.equal(t, before[n])
    }
    assert moved == {"fc7", "fc8"}


def test_lower_layers_learn_more_slowly_and_each_parameter_once() -> None:
    net = SPECS["alexnet"].empty(5)
    groups = rates_by_depth(net, "fc8", 10.0)
    rates = {g["name"]: g["lr_multiplier"] for g in groups}
    assert next(iter(rates)) == "conv1"
    assert rates["conv1"] == pytest.approx(LOWEST)
    assert rates["fc7"] == 1.0
    assert rates["head"] == 10.0
    body = [rate for name, rate in rates.items() if name != "head"]
    steps = {round(b / a, 9) for a, b in itertools.pairwise(body)}
    assert len(steps) == 1, "in even ratios"
    assert [id(p) for p in groups[-1]["params"]] == [id(p) for p in net.fc8.parameters()]
    assert sorted(id(p) for g in groups for p in g["params"]) == sorted(
        map(id, net.parameters())
    )
    freeze_through(net, "fc7")
    assert [g["name"] for g in rates_by_depth(net, "fc8", 10.0)] == ["head"]
