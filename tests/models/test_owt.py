"""``alexnet-owt`` is torchvision's network."""

from __future__ import annotations

import logging

import pytest
import torch
import torchvision
from torch import Tensor, nn

from alexkit.models.layered import initialise
from alexkit.models.specs import TORCHVISION_ALIASES
from alexkit.models.weights import canonical_name, torchvision_names

LOG = logging.getLogger(__name__)  # figures: pytest --log-cli-level=INFO


@pytest.fixture(scope="module")
def pair(make_net):
    """torchvision's alexnet and ours, with equal weights."""
    ours = make_net("alexnet-owt")
    theirs = torchvision.models.alexnet(weights=None).eval()
    theirs.load_state_dict(torchvision_names(ours.canonical_state_dict()))
    return theirs, ours


def modules_of(net: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What every module of torchvision's network gives, copied before the next changes it."""
    values: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda _m, _i, out, name=name: values.update({name: out.detach().clone()})
        )
        for name, module in net.named_modules()
        if "." in name
    ]
    with torch.inference_mode():
        net(x)
    for hook in hooks:
        hook.remove()
    return values


@pytest.mark.parametrize("side", [224, 256])
def test_logits_and_every_layer_equal_torchvisions(pair, make_images, difference, side) -> None:
    theirs, ours = pair
    x = make_images(side)
    expected = modules_of(theirs, x)
    with torch.inference_mode():
        got = ours.taps(x, list(TORCHVISION_ALIASES.values()))
        logits = difference(ours(x), theirs(x))
    assert set(got) | {"prob"} == set(ours.layer_shapes()), "every layer has a counterpart"
    worst = max(difference(got[ours_], expected[t]) for t, ours_ in TORCHVISION_ALIASES.items())
    LOG.info("largest relative difference %.1e", max(worst, logits))
    assert worst <= 1e-5
    assert logits <= 1e-5


def test_training_drops_the_same_units_and_gives_the_same_gradients(
    pair, make_images, difference
) -> None:
    theirs, ours = pair
    x, y = make_images(), torch.tensor([3, 700])
    losses = []
    for net in (theirs.train(), ours.train()):
        torch.manual_seed(11)
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        losses.append(loss.item())
    gradients = {canonical_name(n): p.grad for n, p in theirs.named_parameters()}
    worst = max(difference(p.grad, gradients[n]) for n, p in ours.named_parameters())
    for net in pair:
        net.eval().zero_grad()
    LOG.info("largest relative difference %.1e", worst)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert worst <= 1e-5


def test_initial_values_are_torchvisions(make_net) -> None:
    net = make_net("alexnet-owt")
    initialise(net, 3)
    torch.manual_seed(3)
    theirs = torchvision.models.alexnet(weights=None).state_dict()
    ours = net.canonical_state_dict()
    assert all(torch.equal(t, ours[canonical_name(n)]) for n, t in theirs.items())


def test_names_go_to_torchvision_and_back(pair) -> None:
    state = pair[1].canonical_state_dict()
    renamed = torchvision_names(state)
    assert list(renamed) == list(pair[0].state_dict())
    assert [canonical_name(n) for n in renamed] == list(state)
