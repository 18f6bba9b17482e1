"""Networks with weights that make every layer matter, and ways to compare."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from alexkit.choices import MODELS
from alexkit.models.layered import LayeredNet
from alexkit.models.specs import SPECS

MakeNet = Callable[..., LayeredNet]
MakeImages = Callable[..., Tensor]
Difference = Callable[[Tensor, Tensor], float]


def lively(net: LayeredNet, seed: int) -> None:
    """Weights that keep activations as large as the pixels: with the networks' own small
    ones, biases rule and an error in a convolution would hardly show.

    Of 60 million, as many as a prime are drawn, and drawn on again from the start.
    """
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.empty(499_979).normal_(generator=generator)
    state = {}
    for name, tensor in net.canonical_state_dict().items():
        drawn = torch.empty(tensor.shape, dtype=tensor.dtype)
        if name.endswith("num_batches_tracked"):
            drawn.fill_(7)
        elif drawn.ndim > 1:
            scaled = numbers * math.sqrt(2 / drawn[0].numel())
            for part in drawn.view(-1).split(len(numbers)):
                part.copy_(scaled[: len(part)])
        else:
            drawn.uniform_(0.5, 1.5, generator=generator)
        state[name] = drawn
    net.load_canonical(state)


@pytest.fixture(scope="session")
def make_net() -> MakeNet:
    """``make(name, seed=0, num_classes=1000)``: a network of :data:`SPECS`, in eval mode."""

    def make(name: str, seed: int = 0, num_classes: int = 1000) -> LayeredNet:
        net = SPECS[name].empty(num_classes).to_empty(device=torch.device("cpu")).eval()
        lively(net, seed)
        return net

    return make


@pytest.fixture(scope="module", params=MODELS)
def each_net(request: pytest.FixtureRequest, make_net: MakeNet) -> LayeredNet:
    """Every network in turn; a test leaves it as it was."""
    return make_net(request.param)


@pytest.fixture(scope="session")
def make_images() -> MakeImages:
    """``make(side=224, n=2, seed=0)``: (n, 3, side, side) float32, spread as centred pixels."""

    def make(side: int = 224, n: int = 2, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 60 * torch.randn(n, 3, side, side, generator=generator)

    return make


@pytest.fixture(scope="session")
def difference() -> Difference:
    """The largest difference of two tensors of one shape, relative to the largest value."""

    def largest(got: Tensor, expected: Tensor) -> float:
        assert got.shape == expected.shape
        assert expected.abs().max() > 0, "two empty tensors prove nothing"
        return ((got - expected).abs().max() / expected.abs().max()).item()

    return largest
