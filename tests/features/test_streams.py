"""Parts in their order, whoever is first; nothing left behind."""

from __future__ import annotations

import threading

import pytest
import torch

from alexkit.features.streams import side_by_side


def streams() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("alexkit-stream")]


def test_order_is_that_of_the_parts_and_three_are_at_work() -> None:
    three, first = threading.Barrier(3), threading.Event()

    def work(part: int) -> tuple[int, int]:
        if part < 3:
            three.wait(timeout=60)
        if part == 0:
            assert first.wait(timeout=60)  # done after the others that began with it
        elif part == 2:
            first.set()
        return part, torch.get_num_threads()

    before = torch.get_num_threads()
    assert list(side_by_side(range(20), work, 3)) == [(part, 1) for part in range(20)]
    assert torch.get_num_threads() == before
    assert not streams()


def test_parts_are_not_taken_far_ahead() -> None:
    taken: list[int] = []

    def parts() -> object:
        for part in range(100):
            taken.append(part)
            yield part

    found = side_by_side(parts(), lambda part: part, 2)  # type: ignore[arg-type,var-annotated]
    assert next(found) == 0
    assert len(taken) <= 4
    found.close()  # type: ignore[attr-defined]
    assert not streams()


def test_no_stream_waits_for_a_slower_one() -> None:
    """The first part is done only when all others are."""
    left = threading.Semaphore(0)

    def work(part: int) -> int:
        if part == 0:
            for _ in range(29):
                assert left.acquire(timeout=60)
        else:
            left.release()
        return part

    found = list(side_by_side(range(30), work, 2, in_order=False))
    assert sorted(found) == list(range(30))
    assert found.index(0) >= 26  # the last few may be done at once
    assert not streams()


def test_an_error_comes_at_its_place() -> None:
    def work(part: int) -> int:
        if part == 4:
            raise ZeroDivisionError("a bug")
        return part

    seen: list[int] = []
    with pytest.raises(ZeroDivisionError, match="a bug"):
        seen.extend(side_by_side(range(9), work, 2))
    assert seen == [0, 1, 2, 3]
    assert not streams()
