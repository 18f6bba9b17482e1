"""The loop against the same loop in plain lines, and validation against its definition."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.errors import DataError
from alexkit.training import loop
from alexkit.training.loop import StepResult, fit, step_seed, validate
from alexkit.training.optim import make_optimizer, optimizer_state
from tests.conftest import Clock
from tests.training.conftest import MakeBatches, MakeNet

Pair = tuple[Tensor, Tensor]


def as_is(pair: Pair) -> Pair:
    return pair


def start(
    net: nn.Module,
    batches: Iterator[Pair] | list[Pair],
    *,
    optimizer: torch.optim.SGD | None = None,
    prepare: Callable[[Pair], Pair] = as_is,
    loss_fn: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    seed: int = 0,
    first_step: int = 0,
) -> Iterator[StepResult]:
    return fit(
        net,
        batches,
        optimizer or make_optimizer([{"params": net.parameters()}]),
        prepare=prepare,
        loss_fn=loss_fn,
        lr=lambda step: 0.05,
        seed=seed,
        first_step=first_step,
    )


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_fit_is_the_plain_loop(make_net: MakeNet, make_batches: MakeBatches) -> None:
    batches = make_batches(0, 6)
    plain = make_net()
    sgd = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9, weight_decay=0.0005)
    plain.train()
    losses = []
    for step, (x, y) in enumerate(batches):
        torch.manual_seed(step_seed(7, step))
        sgd.zero_grad()
        loss = F.cross_entropy(plain(x), y)
        loss.backward()
        sgd.step()
        losses.append(loss.item())
    net = make_net().eval()
    results = list(start(net, batches, seed=7))
    for name, tensor in net.state_dict().items():
        assert torch.allclose(tensor, plain.state_dict()[name], rtol=1e-5, atol=1e-7), name
    assert [r.loss for r in results] == pytest.approx(losses, rel=1e-5)


def test_the_figures_of_a_step(make_net: MakeNet, make_batches: MakeBatches) -> None:
    ((x, y),) = make_batches(0, 1)
    plain = make_net()
    torch.manual_seed(step_seed(0, 12))
    logits = plain(x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    (result,) = start(make_net(), [(x, y)], first_step=12)
    assert (result.step, result.n, result.lr) == (12, 8, 0.05)
    assert result.loss == pytest.approx(loss.item(), rel=1e-6)
    assert result.top1 == pytest.approx((logits.argmax(1) == y).float().mean().item())
    squares = sum(p.grad.double().square().sum() for p in plain.parameters())
    assert result.gradient_norm == pytest.approx(math.sqrt(squares), rel=1e-5)


def test_waiting_is_the_time_of_the_data_and_of_no_one_else(
    make_net: MakeNet, make_batches: MakeBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(loop, "time", clock)

    def arriving() -> Iterator[Pair]:
        for pair in make_batches(0, 2):
            clock.now += 1.0
            yield pair

    def prepared(pair: Pair) -> Pair:
        clock.now += 10.0
        return pair

    for result in start(make_net(), arriving(), prepare=prepared):
        assert (result.seconds_waiting, result.seconds) == (1.0, 11.0)
        clock.now += 100.0  # validating, saving


def test_randomness_depends_on_the_seed_and_the_step_only(
    make_net: MakeNet, make_batches: MakeBatches
) -> None:
    batches = make_batches(0, 4)
    ends = []
    for disturb in (False, True):
        net = make_net()
        for _ in start(net, batches, seed=1):
            if disturb:
                torch.rand(17)
                validate(net, batches, prepare=as_is)
        ends.append(state(net))
    assert same(*ends)
    for other in ({"seed": 2}, {"seed": 1, "first_step": 1}):
        net = make_net()
        list(start(net, batches, **other))  # type: ignore[arg-type]
        assert not same(ends[0], state(net))


def test_neighbouring_seeds_are_not_the_same_run_one_step_later() -> None:
    seeds = {step_seed(seed, step) % 2**32 for seed in range(50) for step in range(50)}
    assert len(seeds) == 2500
    assert step_seed(0, 0) == 8668861027912758289  # a run begun today continues tomorrow


def test_a_batch_without_images_counts_as_a_step_and_moves_nothing(
    make_net: MakeNet, make_batches: MakeBatches
) -> None:
    empty = (torch.empty(0, 3, 8, 8), torch.empty(0, dtype=torch.int64))
    first, second = make_batches(0, 2)
    net = make_net()
    run = start(net, [first, empty, second])
    next(run)
    before = state(net)
    result = next(run)
    assert same(before, state(net))
    assert (result.step, result.n, result.loss, result.top1) == (1, 0, 0.0, 0.0)
    assert next(run).step == 2
    assert not same(before, state(net))


def nan_loss(logits: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(logits, y) + math.nan  # and a gradient that is finite


def nan_gradient(logits: Tensor, y: Tensor) -> Tensor:
    # The square root of 0 is finite and its slope is not.
    return F.cross_entropy(logits, y) + (logits - logits.detach()).sum().abs().sqrt()


@pytest.mark.parametrize("loss_fn", [nan_loss, nan_gradient])
def test_a_step_that_is_not_finite_is_not_applied(
    make_net: MakeNet, make_batches: MakeBatches, loss_fn: Callable[[Tensor, Tensor], Tensor]
) -> None:
    net = make_net()
    optimizer = make_optimizer([{"params": net.parameters()}])
    batches = make_batches(0, 4)
    list(start(net, batches[:3], optimizer=optimizer))
    weights = state(net)
    momentum = {n: b.clone() for n, b in optimizer_state(optimizer, net)[0].items()}
    (step,) = start(net, batches[3:], optimizer=optimizer, loss_fn=loss_fn, first_step=3)
    assert not step.applied
    assert not math.isfinite(step.loss + step.gradient_norm)
    assert same(weights, state(net))  # running statistics of batch norm too
    assert same(momentum, optimizer_state(optimizer, net)[0])
    # And the run can go on from there.
    assert next(start(net, batches[3:], optimizer=optimizer, first_step=3)).applied


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_logits_may_come_from_another_device_than_images(
    make_net: MakeNet, make_batches: MakeBatches
) -> None:
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = make_net().cuda()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.inner(x.cuda())
            return logits

    net = Elsewhere()
    batches = make_batches(0, 3)
    results = list(start(net, batches))
    assert all(math.isfinite(r.loss) for r in results)
    assert validate(net, batches, prepare=as_is)["n"] == 24


class Table(nn.Module):
    """Logits that are the image itself: (N, K) in, (N, K) out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.fixture
def judged() -> Pair:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(101, 12, generator=generator), torch.randint(
        12, (101,), generator=generator
    )


def cut(pair: Pair, *sizes: int) -> list[Pair]:
    return list(zip(pair[0].split(list(sizes)), pair[1].split(list(sizes)), strict=True))


def test_validation_by_definition(judged: Pair) -> None:
    logits, y = judged
    # An image is right among k if fewer than k logits are above its label's.
    above = (logits > logits.gather(1, y[:, None])).sum(dim=1)
    result = validate(Table(), cut(judged, 50, 50, 1), prepare=as_is)
    assert result["top1"] == pytest.approx((above < 1).double().mean().item(), rel=1e-12)
    assert result["top5"] == pytest.approx((above < 5).double().mean().item(), rel=1e-12)
    assert result["loss"] == pytest.approx(
        F.cross_entropy(logits.double(), y).item(), rel=1e-12
    )
    assert result["n"] == 101
    assert 0 < result["top1"] < result["top5"] < 1


def test_batches_do_not_weigh(judged: Pair) -> None:
    whole = validate(Table(), cut(judged, 101), prepare=as_is)
    parts = validate(Table(), cut(judged, 0, 1, 64, 0, 36, 0), prepare=as_is)
    assert parts == pytest.approx(whole, rel=1e-12)


def test_fewer_than_five_classes(judged: Pair) -> None:
    logits, y = judged
    result = validate(Table(), [(logits[:, :3], y % 3)], prepare=as_is)
    assert result["top5"] == 1.0
    assert result["top1"] < 1.0


def test_no_image_at_all_is_told(judged: Pair) -> None:
    with pytest.raises(DataError) as caught:
        validate(Table(), [(judged[0][:0], judged[1][:0])], prepare=as_is)
    assert caught.value.exit_status == 3


@pytest.mark.parametrize("training", [True, False])
def test_validation_leaves_the_network_as_it_was(
    make_net: MakeNet, make_batches: MakeBatches, training: bool
) -> None:
    net = make_net().train(training)
    before = state(net)
    batches = make_batches(0, 3)
    first = validate(net, batches, prepare=as_is)
    assert first == validate(net, batches, prepare=as_is)  # no dropout, no batch statistics
    assert net.training is training
    assert same(before, state(net))


def test_a_network_that_fails_is_left_in_its_mode(make_net: MakeNet) -> None:
    net = make_net().train()
    with pytest.raises(RuntimeError):
        validate(
            net, [(torch.zeros(2, 5, 8, 8), torch.zeros(2, dtype=torch.int64))], prepare=as_is
        )
    assert net.training
