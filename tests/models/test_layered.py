"""Layers by name: from one pass, only as deep as asked, never overwritten."""

from __future__ import annotations

import copy

import pytest
import torch

from alexkit.errors import UnknownName
from alexkit.models.layered import PIECE, initialise


def test_shapes_are_those_of_real_values(each_net, make_images) -> None:
    shapes = each_net.layer_shapes()
    with torch.inference_mode():
        taps = each_net.taps(make_images(each_net.input_side, n=2), list(shapes))
    assert {name: tuple(t.shape[1:]) for name, t in taps.items()} == shapes
    assert list(taps) == list(shapes)
    assert shapes["conv1"][1:] == (55, 55)
    assert shapes["pool5"] == (256, 6, 6)
    assert {"conv1", "conv2", "conv3", "conv4", "conv5", "pool1", "pool2"} <= shapes.keys()
    assert (shapes["fc6"], shapes["fc7"], shapes["fc8"]) == ((4096,), (4096,), (1000,))


def test_one_pass_gives_what_single_passes_give(each_net, make_images) -> None:
    x = make_images(each_net.input_side, n=1)
    names = list(each_net.layer_shapes())
    with torch.inference_mode():
        together = each_net.taps(x, names)
        for name in names:
            alone = each_net.taps(x, [name])
            assert list(alone) == [name]
            assert torch.equal(alone[name], together[name]), name
        assert torch.equal(each_net(x), together["fc8"])
    for name in names:
        if name.endswith(":pre"):
            before, after = together[name], together[name.removesuffix(":pre")]
            assert before.min() < 0, "overwritten by the ReLU that follows"
            assert torch.equal(before.clamp(min=0), after)
    assert torch.equal(together["prob"], together["fc8"].softmax(dim=1))


def test_a_batch_in_pieces_has_the_bits_of_small_ones(make_net, make_images) -> None:
    net = make_net("alexnet-owt")
    x = make_images(net.input_side, n=PIECE + 3).contiguous(memory_format=torch.channels_last)
    names = ["fc7", "conv2:pre", "pool5", "fc6:pre"]
    with torch.inference_mode():
        whole = net.taps(x, names)
        assert list(whole) == names
        for first in (0, 19):
            part = net.taps(x[first : first + 16], names)
            for name in names:
                assert torch.equal(part[name], whole[name][first : first + 16]), name
        assert list(net.taps(x, ["conv3", "pool1"])) == ["conv3", "pool1"]
        with pytest.raises(UnknownName, match="conv6") as caught:
            net.taps(x, ["fc7", "conv6"])
        assert "did you mean conv" in caught.value.hint
    taps = net.taps(x[:, :, ::4, ::4], ["pool1"])
    assert taps["pool1"].requires_grad, "with gradients it is one piece"


def test_the_order_of_maps_in_memory_changes_no_map(make_net, make_images) -> None:
    net = make_net("alexnet-owt")
    x = make_images(net.input_side, n=4)
    with torch.inference_mode():
        plain = net.taps(x, ["conv2"])["conv2"]
        last = net.taps(x.contiguous(memory_format=torch.channels_last), ["conv2", "pool2"])
    assert torch.allclose(plain, last["conv2"], rtol=0, atol=1e-5 * float(plain.max()))
    assert last["pool2"].is_contiguous(memory_format=torch.channels_last)


def test_it_goes_no_deeper_than_asked(each_net, make_images) -> None:
    ran: list[str] = []
    hooks = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
        for name, module in each_net.named_modules()
        if not list(module.children()) and hasattr(module, "weight")
    ]
    with torch.inference_mode():
        each_net.taps(make_images(each_net.input_side, n=1), ["conv1", "pool2"])
    for hook in hooks:
        hook.remove()
    assert ran
    assert not [name for name in ran if "conv3" in name or "fc" in name]


def test_the_order_asked_is_the_order_given_and_doubles_do_no_harm(
    each_net, make_images
) -> None:
    x = make_images(each_net.input_side, n=1)
    with torch.inference_mode():
        assert list(each_net.taps(x, ["fc7", "conv1", "fc7"])) == ["fc7", "conv1"]
        assert each_net.taps(x, []) == {}


def test_a_layer_that_is_not_there(each_net, make_images) -> None:
    with pytest.raises(UnknownName, match="conv6") as caught:
        each_net.taps(make_images(each_net.input_side, n=1), ["conv1", "conv6"])
    assert "did you mean conv" in caught.value.hint


def test_asking_for_shapes_leaves_the_network_alone(make_net) -> None:
    net = make_net("alexnet-bn").train()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    net.layer_shapes()
    assert net.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_gradients_pass_through_taps(make_net, make_images) -> None:
    net = make_net("alexnet-owt")
    net.taps(make_images(n=1), ["conv2:pre", "conv2"])["conv2:pre"].sum().backward()
    assert net.conv1.weight.grad.abs().sum() > 0
    assert net.conv3.weight.grad is None


@pytest.mark.parametrize("layer", ["fc6", "fc7", "fc8"])
def test_cut_networks_serve_what_is_left(each_net, make_images, layer: str) -> None:
    whole = each_net.layer_shapes()
    # A copy of the modules that shares the tensors.
    net = copy.deepcopy(each_net, {id(p): p for p in each_net.parameters()})
    net.cut(layer)
    names = list(net.layer_shapes())
    assert (
        names == list(whole)[: list(whole).index("fc8" if layer == "fc8" else f"{layer}:pre")]
    )
    assert not [n for n in net.canonical_state_dict() if n.startswith(layer)]
    x = make_images(net.input_side, n=1)
    with torch.inference_mode():
        assert torch.equal(
            net.taps(x, names[-1:])[names[-1]], each_net.taps(x, names)[names[-1]]
        )
        with pytest.raises(AssertionError, match="no classifier"):
            net(x)


def test_canonical_tensors_do_not_depend_on_the_network_being_in_parts(each_net) -> None:
    state = each_net.canonical_state_dict()
    assert next(iter(state)) == "conv1.weight"
    assert all(len(name.split(".")) in (2, 3) for name in state)
    assert sum(
        t.numel() for n, t in state.items() if "running" not in n and "num" not in n
    ) == (sum(p.numel() for p in each_net.parameters()))


def test_initial_values_follow_from_the_seed(make_net) -> None:
    net = make_net("alexnet")
    initialise(net, 5)
    kept = {name: t.clone() for name, t in net.state_dict().items()}
    initialise(net, 6)
    weights = {name for name in kept if name.endswith("weight")}
    assert {name for name, t in net.state_dict().items() if not torch.equal(t, kept[name])} == (
        weights
    )
    initialise(net, 5)
    assert all(torch.equal(t, kept[name]) for name, t in net.state_dict().items())


@pytest.mark.parametrize("layer", ["conv2", "pool5", "fc6", "fc7"])
def test_it_goes_on_after_a_layer(each_net, make_images, layer: str) -> None:
    x = make_images(each_net.input_side, n=2)
    with torch.inference_mode():
        taps = each_net.taps(x, [layer, "fc8"])
        assert torch.equal(each_net(taps[layer].clone(), after=layer), taps["fc8"])


def test_what_is_dropped_after_a_layer_is_dropped_when_it_begins_there(
    each_net, make_images
) -> None:
    x = make_images(each_net.input_side, n=2)
    with torch.inference_mode():
        fc6 = each_net.taps(x, ["fc6"])["fc6"]
        each_net.train()
        try:
            torch.manual_seed(0)
            first = each_net(fc6.clone(), after="fc6")
            second = each_net(fc6.clone(), after="fc6")
            torch.manual_seed(0)
            again = each_net(fc6.clone(), after="fc6")
        finally:
            each_net.eval()
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
