"""Batches on their way to a device: all of them, in order, and nothing left behind."""

from __future__ import annotations

import threading
from collections.abc import Generator

import numpy as np
import pytest
import torch

from alexkit.images.batches import Batch
from alexkit.images.prefetch import on_device

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


def numbered(count: int, closed: list[int]) -> Generator[Batch]:
    """Batches whose pixels are their number; tells when it is closed."""
    pin = torch.cuda.is_available()
    try:
        for number in range(count):
            pixels = torch.full((2, 64, 64, 3), number, dtype=torch.uint8, pin_memory=pin)
            rows = np.array([2 * number, 2 * number + 1])
            yield Batch(rows, pixels, torch.tensor([0, 1]), (), (), np.arange(2), 2)
        if count == 7:
            raise ZeroDivisionError("a bug")
    finally:
        closed.append(count)


def copiers() -> list[str]:
    names = [thread.name for thread in threading.enumerate()]
    return [name for name in names if name.startswith("alexkit-copy")]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [0, 1, 50])
def test_every_batch_arrives_in_order(device: str, count: int) -> None:
    closed: list[int] = []
    seen = []
    for batch in on_device(numbered(count, closed), torch.device(device)):
        assert batch.pixels.device.type == device
        busy = torch.ones((500, 500), device=device)
        for _ in range(20 if device == "cuda" else 0):  # what the next copy must not overtake
            busy = busy @ busy / 500
        seen.append((batch.rows.tolist(), int(batch.pixels.min()), int(batch.pixels.max())))
    assert seen == [([2 * n, 2 * n + 1], n, n) for n in range(count)]
    assert closed == [count]
    assert not copiers()


@pytest.mark.parametrize("device", DEVICES)
def test_leaving_early_closes_what_is_read(device: str) -> None:
    closed: list[int] = []
    batches = on_device(numbered(50, closed), torch.device(device))
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert closed == [50]
    assert not copiers()


@pytest.mark.parametrize("device", DEVICES)
def test_an_error_comes_where_it_happened(device: str) -> None:
    closed: list[int] = []
    seen: list[Batch] = []
    with pytest.raises(ZeroDivisionError, match="a bug"):
        seen.extend(on_device(numbered(7, closed), torch.device(device)))
    assert (len(seen), closed) == (7, [7])
    assert not copiers()
