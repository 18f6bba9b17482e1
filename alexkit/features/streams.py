"""Work on several parts at once, each by one thread from bytes to features."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
Done = TypeVar("Done")


def side_by_side(
    parts: Iterable[Part], work: Callable[[Part], Done], streams: int
) -> Iterator[Done]:
    """``work`` of each part, in the order of ``parts``, ``streams`` of them at a time.

    For a network on a CPU: every stream decodes its own batch and runs it with one thread of
    torch, so that no core waits for another. Leaving early, by ``break``, ``close`` or an
    error, waits for the parts in work and leaves no thread behind.

    Args:
        work: called from several threads at once.
        streams: at least 1.

    Raises:
        Exception: whatever ``work`` raises, at its part's place.
    """
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(
        streams, "alexkit-stream", initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        waiting: deque[Future[Done]] = deque()
        for part in parts:
            waiting.append(pool.submit(work, part))
            # One more than there are streams, so that none is idle while one is taken over.
            if len(waiting) > streams + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # A part of it, MKL's, is of the whole process.
        torch.set_num_threads(threads)
