"""The last layer of a network of torchvision: put anew, read before, learnt alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from alexkit.errors import UsageError
from alexkit.models.heads import HEAD_STD, Tail
from alexkit.models.torchvision_nets import TorchvisionBackbone, TorchvisionNet


class TorchvisionTail(Tail):
    """The last linear layer as a network of its own."""

    def forward(self, value: Tensor) -> Tensor:
        """Logits (N, K), of (N, …)."""
        logits: Tensor = linear_head(self.whole)(value.flatten(1))
        return logits


def head_name(net: TorchvisionNet) -> str:
    """The module that has the network's last tensors."""
    *_, last = net.network.state_dict()
    return last.rpartition(".")[0]


def linear_head(net: TorchvisionNet) -> nn.Linear:
    """The last layer, where it is linear."""
    head = net.network.get_submodule(head_name(net))
    assert isinstance(head, nn.Linear), head
    return head


def read_by_head(net: TorchvisionNet) -> str | None:
    """The node that the last layer reads; None where it is no linear layer at the very end."""
    name, shapes = head_name(net), net.layer_shapes()
    head = net.network.get_submodule(name)
    nodes = list(shapes)
    if not isinstance(head, nn.Linear) or name != net.logits_node:
        return None
    before = nodes[nodes.index(name) - 1]
    return before if math.prod(shapes[before]) == head.in_features else None


def replace_torchvision_head(
    backbone: TorchvisionBackbone, num_classes: int, *, seed: int
) -> None:
    """Puts a new last layer for ``num_classes``, weights from N(0, 0.01²), biases 0; the other
    outputs that some networks have for training alone go.

    Raises:
        UsageError: the network does not end in a linear layer or a 1 x 1 convolution.
    """
    network = backbone.net.network
    for aux in ("aux1", "aux2", "AuxLogits"):
        if getattr(network, aux, None) is not None:
            setattr(network, aux, None)
            network.aux_logits = False  # type: ignore[assignment]
    name = head_name(backbone.net)
    old = network.get_submodule(name)
    fresh: nn.Linear | nn.Conv2d
    if isinstance(old, nn.Linear):
        fresh = nn.Linear(old.in_features, num_classes)
    elif isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1):
        fresh = nn.Conv2d(old.in_channels, num_classes, 1)
    else:
        raise UsageError(
            f"{backbone.name} ends in a {type(old).__name__}, which cannot be replaced",
            hint="use a network that ends in a linear layer, e.g. resnet50",
        )
    generator = torch.Generator().manual_seed(seed)
    assert fresh.bias is not None
    with torch.no_grad():
        fresh.weight.normal_(0.0, HEAD_STD, generator=generator)
        fresh.bias.zero_()
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, fresh)
    if hasattr(network, "num_classes"):
        network.num_classes = num_classes  # type: ignore[assignment]
    backbone.net = TorchvisionNet(network, backbone.net.input_side)
