"""The paper's update rule, written out by hand in float64, against what runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from alexkit.errors import WeightsMismatch
from alexkit.training.optim import (
    descend,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
)

Array = npt.NDArray[np.float64]
DROP = [0.01] * 15 + [0.001] * 15 + [0.0001] * 10
WARM_UP_AND_DECAY = [0.02 * (i + 0.5) / 10 for i in range(10)] + [
    0.02 * (1 - (i + 0.5) / 30) for i in range(30)
]


class Problem:
    """A loss ½ (w − c)ᵀ A (w − c) whose gradient is known, in 20 dimensions."""

    def __init__(self, dtype: torch.dtype) -> None:
        rng = np.random.default_rng(0)
        root = rng.normal(size=(20, 20))
        self.a = root @ root.T / 20
        self.centre = rng.normal(size=20)
        self.start = rng.normal(size=20)
        self.weight = nn.Parameter(torch.tensor(self.start, dtype=dtype))

    def gradient(self, w: Array) -> Array:
        return self.a @ (w - self.centre)

    def backward(self) -> None:
        dtype = self.weight.dtype
        offset = self.weight - torch.tensor(self.centre, dtype=dtype)
        self.weight.grad = None
        (0.5 * offset @ torch.tensor(self.a, dtype=dtype) @ offset).backward()


def by_the_paper(problem: Problem, rates: Sequence[float], *, decay: float = 0.0005) -> Array:
    """NIPS 2012 §5, equation by equation."""
    w, v = problem.start.copy(), np.zeros(20)
    for rate in rates:
        v = 0.9 * v - decay * rate * w - rate * problem.gradient(w)
        w = w + v
    return w


def relative(found: Array, wanted: Array) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def run(problem: Problem, step: Callable[[float], object], rates: Sequence[float]) -> Array:
    for rate in rates:
        problem.backward()
        step(rate)
    return problem.weight.detach().double().numpy()


@pytest.mark.parametrize("rates", [DROP, WARM_UP_AND_DECAY], ids=["drop", "every step"])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_update_is_the_papers(
    rates: Sequence[float], dtype: torch.dtype, most: float
) -> None:
    problem = Problem(dtype)
    optimizer = make_optimizer([{"params": [problem.weight]}])
    found = run(problem, lambda rate: descend(optimizer, rate), rates)
    assert relative(found, by_the_paper(problem, rates)) <= most


def test_torch_alone_does_something_else_after_a_drop() -> None:
    """Else the test above would say nothing."""
    problem = Problem(torch.float64)
    optimizer = torch.optim.SGD([problem.weight], lr=1, momentum=0.9, weight_decay=0.0005)

    def step(rate: float) -> None:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()

    assert relative(run(problem, step, DROP), by_the_paper(problem, DROP)) > 1e-4


def test_groups_have_their_own_rate_and_decay() -> None:
    one, ten = Problem(torch.float64), Problem(torch.float64)
    optimizer = make_optimizer(
        [
            {"name": "body", "params": [one.weight]},
            {"name": "head", "params": [ten.weight], "lr_multiplier": 10, "weight_decay": 0.0},
        ]
    )
    for rate in DROP:
        one.backward()
        ten.backward()
        descend(optimizer, rate)
    body, head = (problem.weight.detach().numpy() for problem in (one, ten))
    assert relative(body, by_the_paper(one, DROP)) <= 1e-12
    tenfold = [10 * rate for rate in DROP]
    assert relative(head, by_the_paper(ten, tenfold, decay=0.0)) <= 1e-12
    assert relative(body, head) > 0.01


def test_a_parameter_may_get_its_first_gradient_late() -> None:
    early, late = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = make_optimizer([{"params": [early, late]}], weight_decay=0.0)
    early.grad = torch.ones(3)
    descend(optimizer, 0.5)
    late.grad = torch.ones(3)
    descend(optimizer, 0.5)
    assert late.tolist() == [0.5] * 3
    assert early.tolist() == pytest.approx([1 - 0.5 - 0.5 * 1.9] * 3)


def small_net(*, channels_last: bool = False) -> nn.Module:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 4, 2))
    return net.to(memory_format=torch.channels_last) if channels_last else net


def steps(net: nn.Module, optimizer: torch.optim.SGD, rates: Sequence[float]) -> None:
    generator = torch.Generator().manual_seed(5)
    for rate in rates:
        optimizer.zero_grad()
        net(torch.randn(4, 3, 4, 4, generator=generator)).square().sum().backward()
        descend(optimizer, rate)


def trained(*, channels_last: bool) -> tuple[nn.Module, torch.optim.SGD]:
    net = small_net(channels_last=channels_last)
    optimizer = make_optimizer([{"name": "all", "params": net.parameters()}])
    steps(net, optimizer, [0.01, 0.01, 0.002])
    return net, optimizer


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_the_state_continues_in_fresh_objects_whatever_their_layout(
    before: bool, after: bool
) -> None:
    net, optimizer = trained(channels_last=before)
    buffers, rates = optimizer_state(optimizer, net)
    assert list(buffers) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert rates == {"all": 0.002}
    other = small_net(channels_last=after)
    other.load_state_dict(net.state_dict())
    fresh = make_optimizer([{"name": "all", "params": other.parameters()}])
    kept = {
        name: buffer.clone(memory_format=torch.contiguous_format)
        for name, buffer in buffers.items()
    }
    load_optimizer_state(fresh, other, kept, rates)
    steps(net, optimizer, [0.0005, 0.0005])
    steps(other, fresh, [0.0005, 0.0005])
    for mine, its in zip(net.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, its, rtol=1e-6, atol=1e-8)
        assert before != after or torch.equal(mine, its)


def test_a_forgotten_rate_would_show() -> None:
    """The rate of the last step is part of the state: the next step may be at another."""
    net, optimizer = trained(channels_last=False)
    buffers, rates = optimizer_state(optimizer, net)
    ends = []
    for remembered in (rates["all"], 0.0005):
        other = small_net()
        other.load_state_dict(net.state_dict())
        fresh = make_optimizer([{"name": "all", "params": other.parameters()}])
        load_optimizer_state(fresh, other, buffers, {"all": remembered})
        steps(other, fresh, [0.0005])
        ends.append(other[2].weight.detach())  # type: ignore[index, union-attr]
    assert not torch.allclose(ends[0], ends[1], rtol=1e-4)


def test_a_state_that_does_not_fit_is_refused_by_name() -> None:
    net, optimizer = trained(channels_last=False)
    buffers, rates = optimizer_state(optimizer, net)
    short = {name: buffer for name, buffer in buffers.items() if name != "2.bias"}
    with pytest.raises(WeightsMismatch, match=r"2\.bias") as caught:
        load_optimizer_state(optimizer, net, short, rates)
    assert caught.value.exit_status == 4
    with pytest.raises(WeightsMismatch, match=r"2\.bias"):
        load_optimizer_state(optimizer, net, {**buffers, "2.bias": torch.zeros(3)}, rates)
    with pytest.raises(WeightsMismatch, match="group all, group head"):
        load_optimizer_state(optimizer, net, buffers, {"head": 0.1})


def test_a_network_that_changed_its_layout_is_a_bug_that_shows() -> None:
    net, optimizer = trained(channels_last=False)
    net.to(memory_format=torch.channels_last)
    with pytest.raises(AssertionError, match="layout"):
        steps(net, optimizer, [0.1])


def test_the_fused_kernel_is_taken_on_a_cpu() -> None:
    _, optimizer = trained(channels_last=False)
    assert all(group["fused"] for group in optimizer.param_groups)
