"""A new classifier on an old network: what it reads, what stays frozen, which rates apply."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alexkit.models.blocks import FC_WIDTH, fill_gaussian
from alexkit.models.layered import LayeredNet
from alexkit.models.rbf_head import RBFHead

HEAD_STD = 0.01
"""Of a new head's weights: what the paper (§5) and Caffe's networks begin fc8 with."""

LOWEST = 0.1
"""What the first layer's rate is of that below the head."""
READABLE = ("fc7", "gap", "pool5")
"""What a new fc8 reads: the first that the network has."""


def attach_head(
    net: LayeredNet, num_classes: int, *, at: str | None = None, units: int | None = None
) -> nn.Linear:
    """Puts a new ``fc8`` of unset values behind layer ``at``; layers between them go.

    Args:
        net: changed in place.
        num_classes: K.
        at: ``"fc7"``, ``"gap"`` or ``"pool5"``; None is the first that ``net`` has.
        units: how many centres a :class:`RBFHead` on pool5 has; None is a linear layer.

    Returns:
        The new layer, on the network's first slot.
    """
    layers = net.stages()
    at = at or next(layer for layer in READABLE if layer in layers)
    assert at in READABLE, at
    assert at in layers, f"the network has no {at}"
    if at == "fc7" and net.fc8 is not None:
        shape: tuple[int, ...] = (net.fc8.in_features,)
    else:
        shape = net.layer_shapes(last=at)[at]
    net.cut("fc6" if at == "pool5" else "fc8")
    inputs = math.prod(shape)
    if units is None:
        net.fc8 = nn.Linear(inputs, num_classes, device=net.slots[0])
    else:
        net.fc8 = RBFHead(units, inputs, shape[0], num_classes).to(net.slots[0])
    return net.fc8


def replace_head(
    net: LayeredNet, num_classes: int, *, seed: int, at: str | None = None
) -> None:
    """As :func:`attach_head`, with weights from N(0, 0.01²) by ``seed`` and biases of 0.

    On a network without classifier this is a single linear layer on pool5, and its weights
    begin at 0: on maps that stay as they are the loss is convex, and what the vectors of
    pool5, three times as long as those of fc7, make of random weights takes long to unlearn.
    """
    head = attach_head(net, num_classes, at=at)
    if head.in_features != FC_WIDTH:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        return
    weight = torch.empty(head.weight.shape)
    tensors = {"weight": weight, "bias": torch.empty(head.bias.shape)}
    fill_gaussian(tensors, torch.Generator().manual_seed(seed), std=HEAD_STD, bias=0.0)
    head.load_state_dict(tensors)


class Tail(nn.Module):
    """What follows a layer of a network, as a network of its own: it shares the tensors, and
    is saved as the whole.

    Attributes:
        whole: the network.
        after: the layer whose values it takes, as ``taps`` gives them.
    """

    def __init__(self, whole: Any, after: str) -> None:
        super().__init__()
        self.whole = whole
        self.after = after

    def forward(self, value: Tensor) -> Tensor:
        """Logits (N, K), of (N, …)."""
        logits: Tensor = self.whole(value, after=self.after)
        return logits

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """Of the whole network."""
        state: dict[str, Tensor] = self.whole.canonical_state_dict()
        return state

    def load_canonical(self, state: Mapping[str, Tensor]) -> None:
        """Into the whole network."""
        self.whole.load_canonical(state)


def freeze_through(net: nn.Module, after: str | None) -> None:
    """Leaves the weights of the layer ``after`` and all before it as they are, and trains the
    rest; None trains all. Frozen batch norm keeps its running statistics too.

    Args:
        net: a :class:`LayeredNet`; or another network, whose last layer alone is trained.
    """
    if isinstance(net, LayeredNet):
        order = list(net.stages())
        begin = 0 if after is None else order.index(after) + 1
        learnt = set(order[begin:])
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(_layer(net, name) in learnt)
        return
    parameters = list(net.named_parameters())
    last = parameters[-1][0].rpartition(".")[0]
    for name, parameter in parameters:
        parameter.requires_grad_(after is None or name.rpartition(".")[0] == last)


def rates_by_depth(net: nn.Module, head: str, head_multiplier: float) -> list[dict[str, Any]]:
    """The parameters that are trained, as an optimiser takes them: the lower, the slower.

    Of the layers below the head the last learns at the rate itself and the first of the whole
    network at :data:`LOWEST` of it, those between in even ratios (Howard and Ruder 2018,
    arXiv:1801.06146, §3.2, have the idea; fastai's ``slice`` these ends).

    Args:
        head: the head's name among the modules; canonical, of a :class:`LayeredNet`.

    Returns:
        ``{"name": layer or "head", "params": [...], "lr_multiplier": x}``, in order.
    """
    layers: dict[str, list[nn.Parameter]] = {}
    for name, parameter in net.named_parameters():
        layer = _layer(net, name) if isinstance(net, LayeredNet) else name.rpartition(".")[0]
        layers.setdefault(layer, []).append(parameter)
    body = [layer for layer in layers if layer != head]
    groups: list[dict[str, Any]] = []
    for layer, parameters in layers.items():
        learnt = [p for p in parameters if p.requires_grad]
        if not learnt:
            continue
        rate = head_multiplier
        if layer != head:
            depth = body.index(layer) / max(len(body) - 1, 1)
            rate = LOWEST ** (1 - depth)
        name = "head" if layer == head else layer
        groups.append({"name": name, "params": learnt, "lr_multiplier": rate})
    return groups


def _layer(net: LayeredNet, name: str) -> str:
    return net.canonical_name(name).split(".")[0]
