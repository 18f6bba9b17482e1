"""Threads that work for a generator."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from alexkit.images.crew import Crew


def test_a_thread_of_the_crew_may_close_it() -> None:
    crew = Crew(2, "test")

    def numbers() -> Iterator[int]:
        try:
            yield from range(3)
        finally:
            crew.leave()

    left = numbers()
    next(left)
    crew.submit(left.close).result()
    with pytest.raises(RuntimeError, match="after shutdown"):
        crew.submit(print)


def test_any_other_waits_for_what_is_in_work_and_drops_the_rest() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []
    crew = Crew(1, "test", begin=begun.set)

    def work() -> None:
        go_on.wait()
        done.append("in work")

    crew.submit(work)
    waiting = crew.submit(done.append, "never")
    assert begun.wait(60)
    with ThreadPoolExecutor(1) as other:
        leaving = other.submit(crew.leave)
        while not waiting.cancelled():
            assert not leaving.done()
        go_on.set()
        leaving.result()
    assert done == ["in work"]
