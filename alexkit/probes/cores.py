"""Work spread over the cores, with matrix products on one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import numpy as np
from joblib import cpu_count
from threadpoolctl import ThreadpoolController

T = TypeVar("T")

CORES = cpu_count()
LANES = 8
"""Shares of the rows, each summed on its own: the same sums on any number of cores."""


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def spread(items: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """A ``map`` for so many items that uses all cores, with products on one thread each.

    Threads of one small product mostly wait for each other, and turn in circles meanwhile:
    where anything else runs on the machine that takes many times as long.
    """
    if items < 2:
        yield map
        return
    with one_thread_a_product(), ThreadPoolExecutor(min(CORES, items)) as pool:
        yield pool.map


@contextmanager
def one_thread_a_product() -> Iterator[None]:
    """While the block runs, numpy's and scipy's products take one thread."""
    with _libraries().limit(limits=1, user_api="blas"):
        yield


def lanes(work: Callable[[list[slice]], T], blocks: Sequence[slice]) -> list[T]:
    """What ``work`` makes of each of :data:`LANES` shares of some blocks, in order."""
    shares = [
        [blocks[i] for i in part]
        for part in np.array_split(np.arange(len(blocks)), LANES)
        if part.size
    ]
    with spread(len(shares)) as mapped:
        return list(mapped(work, shares))


def blocks_of(n: int, size: int) -> list[slice]:
    """Slices of ``size`` that cover n rows; the last may be shorter."""
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
