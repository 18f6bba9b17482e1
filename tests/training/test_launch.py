"""Processes that tell one another how they are; here each is a thread's worth of one."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import HashStore

from alexkit.errors import Interrupted, UsageError, WorkerFailed
from alexkit.training import launch
from alexkit.training.launch import VARIABLES, Ranks, launched_rank, start
from tests.conftest import Clock


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(launch, "STOPPING_SECONDS", 1.0)
    monkeypatch.setattr(launch, "PAUSE_SECONDS", 0.01)


@pytest.fixture
def three() -> Iterator[list[Ranks]]:
    """Three ranks of one store; those that a test has not ended are let go of as by a kill."""
    store = HashStore()
    ranks = [Ranks(rank, 3, rank, 3, store) for rank in range(3)]
    yield ranks
    for one in ranks:
        kill(one)


def kill(one: Ranks) -> None:
    """No word any more, as after a kill."""
    one._over.set()


def nothing() -> None:
    pass


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with Ranks.launched() as ranks:
        assert (ranks.rank, ranks.world, ranks.alone) == (0, 1, True)
        ranks.check()
        assert ranks.add("done") == 0
    assert launched_rank() == 0


@pytest.mark.parametrize(("rank", "world"), [("2", "2"), ("one", "2"), ("-1", "2")])
def test_variables_that_make_no_sense(
    monkeypatch: pytest.MonkeyPatch, rank: str, world: str
) -> None:
    for name, value in zip(VARIABLES, (rank, world, "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="the launcher's variables are wrong"):
        Ranks.launched()


def test_what_is_told_is_heard_and_counts_are_shared(three: list[Ranks]) -> None:
    first, second, third = three
    with second, third:
        second.tell("plan", "ä")
        assert first.hear("plan", nothing) == "ä"
        assert third.add("done", 3) == 3
        assert second.add("done", 4) == first.add("done") == 7


def test_a_rank_says_that_it_lives(three: list[Ranks]) -> None:
    begun, give_up = three[0].add(launch._beat(1)), time.monotonic() + 60
    with three[1]:
        while three[0].add(launch._beat(1)) < begun + 3:
            assert time.monotonic() < give_up
            time.sleep(0.01)


def test_a_rank_that_is_silent_is_dead(
    three: list[Ranks], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(launch, "time", clock)
    first, second, _ = three

    def looking(one: Ranks, seconds: int, living: list[Ranks]) -> None:
        for _ in range(seconds):
            clock.sleep(1.0)
            for other in living:
                other.add(launch._beat(other.rank), 1)
            one.check()

    looking(first, 100, three)
    looking(first, 25, [first, second])
    with pytest.raises(WorkerFailed, match="rank 2 is dead"):
        looking(first, 10, [first, second])
    looking(second, 100, [first])  # needs rank 0 only
    with pytest.raises(WorkerFailed, match="rank 0 is dead"):
        second.hear("result", nothing)


def test_a_rank_that_fails_says_why(three: list[Ranks]) -> None:
    first, second, third = three
    with pytest.raises(ZeroDivisionError), second:
        raise ZeroDivisionError("by zero")
    with pytest.raises(WorkerFailed, match="rank 1 failed: ZeroDivisionError: by zero"):
        first.check()
    with pytest.raises(UsageError), first:
        raise UsageError("no such layer", hint="use another")
    with pytest.raises(WorkerFailed, match="rank 0 failed: no such layer") as caught:
        third.check()
    assert caught.value.hint == "use another"


def test_all_are_told_to_stop(three: list[Ranks]) -> None:
    first, second, third = three
    second.__enter__()  # has not been told: it lives on
    with pytest.raises(Interrupted), third:
        raise Interrupted("stopped by SIGTERM", hint="again")
    with pytest.raises(Interrupted, match="stopped by SIGINT"), first:
        raise Interrupted("stopped by SIGINT", hint="again")
    with pytest.raises(Interrupted, match="rank 0 was stopped"):
        second.check()


def test_a_stop_because_another_died_names_it(three: list[Ranks]) -> None:
    first, second, third = three
    second.__enter__()
    third.__enter__()
    kill(second)
    second._beating.join()
    with pytest.raises(WorkerFailed, match="rank 1 is dead"), first:
        raise Interrupted("stopped by SIGTERM", hint="again")


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("print('fine')", 0),
        ("import os, sys; sys.exit(3 if os.environ['RANK'] == '1' else 0)", 3),
        ("import os; os.environ['RANK'] == '1' and os.kill(os.getpid(), 9)", 7),
    ],
    ids=["done", "failed", "killed"],
)
def test_a_launcher_of_our_own_ends_as_its_processes_do(
    program: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert start(2, [sys.executable, "-c", program]) == status
    assert not any(tmp_path.iterdir())
