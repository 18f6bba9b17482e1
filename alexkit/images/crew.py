"""Threads that work for a generator, and end with it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Crew(ThreadPoolExecutor):
    """Threads whose generator calls :meth:`leave` when it ends, and does not use ``with``.

    A generator that an error has left unfinished is closed by whichever thread next makes
    Python collect its garbage, one of the crew perhaps, and no thread can wait for itself.

    Args:
        threads: how many, at least 1.
        name: what theirs begin with.
        begin: called in each of them before its work.
    """

    def __init__(
        self, threads: int, name: str, begin: Callable[[], object] | None = None
    ) -> None:
        self._members: set[int] = set()
        super().__init__(
            threads,
            thread_name_prefix=name,
            initializer=_enter,
            initargs=(self._members, begin),
        )

    def in_order(
        self, groups: Iterable[Sequence[Callable[[], T]]], ahead: int
    ) -> Iterator[list[T]]:
        """What each group of tasks gives, in order, with so many groups in work besides the
        one that is waited for; at the end the crew leaves."""
        try:
            waiting: deque[list[Future[T]]] = deque()
            for tasks in groups:
                waiting.append([self.submit(task) for task in tasks])
                if len(waiting) > ahead:
                    yield [task.result() for task in waiting.popleft()]
            while waiting:
                yield [task.result() for task in waiting.popleft()]
        finally:
            self.leave()

    def leave(self) -> None:
        """Drops what has not begun, and waits for the rest, where it is not in its own way."""
        own = threading.get_ident() in self._members
        self.shutdown(wait=not own, cancel_futures=True)


def _enter(members: set[int], begin: Callable[[], object] | None) -> None:
    members.add(threading.get_ident())
    if begin is not None:
        begin()
