"""Batches brought to a GPU while it works on the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace

import torch

from alexkit.images.batches import Batch
from alexkit.images.crew import Crew

_AHEAD = 2
"""Batches on the device besides the one in use: one being copied, one that waits."""


def on_device(batches: Generator[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches with their pixels on ``device``.

    For a GPU the next ones are copied by a thread of their own on a stream of their own, so
    that neither the copy nor a loop that waits for its loss holds the other up; pinned pixels
    (``read_batches(…, pin=True)``) make the copy run beside the computation. On a CPU there
    is nothing to do, and the batches pass unchanged.

    Raises:
        Exception: whatever ``batches`` raises, at the batch where it did.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def fetch() -> tuple[Batch, torch.cuda.Event] | None:
        batch = next(batches, None)
        if batch is None:
            return None
        with torch.cuda.stream(stream):
            pixels = batch.pixels.to(device, non_blocking=True)
            return replace(batch, pixels=pixels), stream.record_event()

    pool = Crew(1, "alexkit-copy")
    try:
        coming = deque(pool.submit(fetch) for _ in range(_AHEAD))
        while (found := coming.popleft().result()) is not None:
            coming.append(pool.submit(fetch))
            batch, copied = found
            reader = torch.cuda.current_stream(device)
            reader.wait_event(copied)
            # Or the memory could be given to the next copy while the reader still computes.
            batch.pixels.record_stream(reader)
            yield batch
    finally:
        pool.leave()
        batches.close()
