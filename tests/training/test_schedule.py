"""Schedules: known rates, torch's own schedulers, and states that travel through JSON."""

from __future__ import annotations

import json

import pytest
import torch

from alexkit.training.schedule import Decay, Plateau, Steps, lr_at_step


def torch_rates(name: str, base: float, epochs: int, **arguments: object) -> list[float]:
    """The rate of every epoch, by one of torch's schedulers."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=base)
    scheduler = getattr(torch.optim.lr_scheduler, name)(optimizer, **arguments)
    rates = []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_steps_are_those_of_torch() -> None:
    rates = [Steps(0.01, (25, 51, 79)).lr(epoch) for epoch in range(91)]
    wanted = torch_rates("MultiStepLR", 0.01, 91, milestones=[25, 51, 79])
    assert rates == pytest.approx(wanted, rel=1e-12)
    assert rates[24:26] == pytest.approx([0.01, 0.001])


def test_the_cosine_is_that_of_torch() -> None:
    rates = [Decay(0.2, epochs=20, cosine=True).lr(epoch) for epoch in range(20)]
    assert rates == pytest.approx(torch_rates("CosineAnnealingLR", 0.2, 20, T_max=20), rel=1e-9)


def test_the_straight_decay_is_that_of_torch() -> None:
    rates = [Decay(0.2, epochs=20).lr(epoch) for epoch in range(20)]
    wanted = torch_rates("LinearLR", 0.2, 20, start_factor=1.0, end_factor=0.0, total_iters=20)
    assert rates == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("cosine", [False, True])
def test_a_warm_up_climbs_to_the_base_and_then_decays(cosine: bool) -> None:
    schedule = Decay(0.2, epochs=10, warmup=2, cosine=cosine)
    assert schedule.lr(1) == pytest.approx(0.1)
    assert schedule.lr(2) == pytest.approx(0.2)
    assert schedule.lr(6) == pytest.approx(0.1)  # half way down, on the line and on the cosine
    assert schedule.lr(10) == pytest.approx(0.0, abs=1e-12)
    assert schedule.lr(11) == pytest.approx(0.0, abs=1e-12)


def test_no_step_of_a_run_has_rate_zero_and_their_mean_is_that_of_the_line() -> None:
    schedule = Decay(0.2, epochs=10, warmup=2)
    rates = [lr_at_step(schedule, step, steps_per_epoch=7) for step in range(70)]
    assert min(rates) > 0
    assert sum(rates) / 70 == pytest.approx(0.1)  # the area of a triangle


def test_a_drop_takes_force_with_the_first_step_of_its_epoch() -> None:
    schedule = Steps(1.0, (3,))
    assert lr_at_step(schedule, 3 * 5 - 1, steps_per_epoch=5) == 1.0
    assert lr_at_step(schedule, 3 * 5, steps_per_epoch=5) == pytest.approx(0.1)


def test_plateau_drops_three_times_and_no_more() -> None:
    schedule = Plateau(0.01, patience=3)
    rates = []
    for error in [0.9, 0.8, 0.7] + [0.7] * 20:
        rates.append(schedule.lr(len(rates)))
        schedule.observe(error)
    # Best at epoch 2, three epochs without gain, then the next rate; and so on.
    wanted = [0.01] * 6 + [0.001] * 3 + [0.0001] * 3 + [0.00001] * 11
    assert rates == pytest.approx(wanted)


def test_plateau_says_when_it_drops() -> None:
    schedule = Plateau(patience=2)
    assert [schedule.observe(e) for e in (0.5, 0.5, 0.5, 0.4, 0.4, 0.4)] == [
        False, False, True, False, False, True,
    ]  # fmt: skip


def test_plateau_takes_a_gain_below_the_least_for_none() -> None:
    slow, quick = Plateau(patience=4, least_gain=0.01), Plateau(patience=4, least_gain=0.01)
    for epoch in range(6):
        slow.observe(0.5 - 0.001 * epoch)
        quick.observe(0.5 - 0.011 * epoch)
    assert slow.drops == 1
    assert quick.drops == 0


def test_plateau_continues_from_its_state() -> None:
    errors = [0.9, 0.7, 0.71, 0.7, 0.6, 0.6, 0.65, 0.61, 0.6, 0.6, 0.6]
    whole = Plateau(patience=2)
    for cut in range(len(errors)):
        whole, first, second = (Plateau(patience=2) for _ in range(3))
        for error in errors:
            whole.observe(error)
        for error in errors[:cut]:
            first.observe(error)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        for error in errors[cut:]:
            second.observe(error)
        assert second == whole
    assert whole.drops == 3


@pytest.mark.parametrize("schedule", [Steps(0.1, (1,)), Decay(0.1, 3)])
def test_a_schedule_by_epoch_keeps_nothing(schedule: Steps | Decay) -> None:
    assert schedule.state_dict() == {}
    schedule.load_state_dict({})
    assert schedule.observe(0.5) is False
    with pytest.raises(AssertionError):
        schedule.load_state_dict({"drops": 1})
