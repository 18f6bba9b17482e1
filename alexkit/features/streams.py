"""Work on several parts at once, each by one thread from bytes to features."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from typing import TypeVar

import torch

from alexkit.images.crew import Crew

Part = TypeVar("Part")
Done = TypeVar("Done")


def side_by_side(
    parts: Iterable[Part],
    work: Callable[[Part], Done],
    streams: int,
    *,
    in_order: bool = True,
) -> Iterator[Done]:
    """``work`` of each part, ``streams`` of them at a time.

    For a network on a CPU: every stream decodes its own batch and runs it with one thread of
    torch, so that no core waits for another. Leaving early, by ``break``, ``close`` or an
    error, waits for the parts in work and leaves no thread behind.

    Args:
        work: called from several threads at once.
        streams: at least 1.
        in_order: of ``parts``; otherwise as they are done, so that no stream waits for a
            slower one.

    Raises:
        Exception: whatever ``work`` raises, at its part's place.
    """
    threads = torch.get_num_threads()
    pool = Crew(streams, "alexkit-stream", partial(torch.set_num_threads, 1))
    try:
        waiting: deque[Future[Done]] = deque()
        for part in parts:
            waiting.append(pool.submit(work, part))
            # One more than there are streams, so that none is idle while one is taken over.
            if len(waiting) > streams + 1:
                yield _next(waiting, in_order).result()
        while waiting:
            yield _next(waiting, in_order).result()
    finally:
        pool.leave()
        # A part of it, MKL's, is of the whole process.
        torch.set_num_threads(threads)


def _next(waiting: deque[Future[Done]], in_order: bool) -> Future[Done]:
    """Takes the first of ``waiting``, or the first that is done."""
    if in_order:
        return waiting.popleft()
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    first = next(future for future in waiting if future in done)
    waiting.remove(first)
    return first
