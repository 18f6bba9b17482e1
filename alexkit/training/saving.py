"""Checkpoints written while training goes on.

A step waits for a copy in memory, not for the disk. At most one checkpoint is on its way;
the copy is as large as it and is let go once written.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from alexkit.training.checkpoint import Checkpoint, CheckpointFolder, SaveRule


class Saver:
    """Saves to ``folder`` from a thread, by ``rule``.

    Attributes:
        last_good: the step of the newest checkpoint known to be whole; None before the first.
    """

    def __init__(self, folder: CheckpointFolder, rule: SaveRule) -> None:
        self.folder = folder
        self.rule = rule
        self.last_good: int | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="alexkit-save")
        self._writing: tuple[int, Future[float]] | None = None

    def due(self) -> bool:
        """Whether to save now. Asked at every step, it also tells how the last one ended.

        Raises:
            OutOfSpace: the checkpoint before could not be written.
        """
        if self._writing is not None and self._writing[1].done():
            self.wait()
        return self._writing is None and self.rule.due()

    def save(self, checkpoint: Checkpoint) -> None:
        """Copies a checkpoint and begins to write it, once the one before is written.

        Raises:
            OutOfSpace: the one before could not be.
        """
        self.wait()
        tensors = {
            group: {name: t.detach().to("cpu", copy=True) for name, t in own.items()}
            for group, own in checkpoint.tensors.items()
        }
        copied = Checkpoint(checkpoint.step, tensors, checkpoint.scalars)
        self._writing = checkpoint.step, self._pool.submit(self.folder.save, copied)

    def wait(self) -> None:
        """Until everything is on the disk.

        Raises:
            OutOfSpace: it could not be written.
        """
        if self._writing is None:
            return
        step, future = self._writing
        self._writing = None
        seconds = future.result()
        self.last_good = step
        self.rule.saved(seconds)

    def close(self) -> None:
        """Lets a checkpoint on its way arrive, and ends the thread."""
        self._pool.shutdown(wait=True)
