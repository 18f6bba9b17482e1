"""Blocks of memory that outlive a step, as the system counts its pages."""

from __future__ import annotations

import resource
import sys

import pytest
import torch

from alexkit.training.memory import blocks_kept


def pages(megabytes: int) -> int:
    """Those got from the system by blocks of that size, one after another."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(megabytes * 2**18)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="of Linux' C library")
def test_large_blocks_are_got_once_and_given_back() -> None:
    with blocks_kept():
        pages(64)
        kept = pages(64)
    assert kept * 4 < pages(64)
