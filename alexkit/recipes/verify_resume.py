"""``alexkit train --verify-resume``: whether a killed run ends as one that was not, here.

With the user's own data, network and options, but few images and epochs, three processes are
started: one trains to its end; one is killed (SIGKILL) in the middle of the second epoch; the
third is the same command again. Both ends are then compared byte for byte.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import AlexkitError, FileMismatch, WorkerFailed
from alexkit.events import Chosen, Event, Note, Reporter, StageAdvanced, silent
from alexkit.images.draws import Rows
from alexkit.models.weights import file_sha256
from alexkit.recipes import train
from alexkit.recipes.fitting import FitRun
from alexkit.recipes.options import TrainOptions
from alexkit.recipes.plan import Plan
from alexkit.recipes.progress import METRICS
from alexkit.recipes.run_dir import RUNS, Remembering, RunDir
from alexkit.training.checkpoint import SaveRule

EPOCHS, STEPS = 2, 3
"""Of each run; steps are of an epoch."""
KILLED_AFTER = 4
"""Steps: one of the second epoch, so that order, momentum and sums must be continued."""
CPU_BATCH = 8
TIMED = ("images_per_second", "waiting")
"""Columns of the metrics that no two runs share."""


def run(options: TrainOptions, report: Reporter) -> dict[str, Any]:
    """Proves, or disproves, that this machine resumes to the bit.

    Returns:
        ``equal`` True, ``compared`` (file names), ``steps``, ``killed_after``, ``seconds``.

    Raises:
        FileMismatch: the ends differ; all that does is named.
        WorkerFailed: a process ended otherwise than it should.
        AlexkitError: whatever training raises.
    """
    began = time.monotonic()
    plan = train.make_plan(options, report)
    device = plan.backbone.net.slots[0].type
    size = options.batch_size or (CPU_BATCH if device == "cpu" else plan.batch_size)
    size = max(1, min(size, len(plan.holdout.train) // STEPS))
    small = replace(
        options,
        epochs=EPOCHS,
        batch_size=size,
        deterministic=True,
        verify_resume=False,
        overwrite=False,
        max_time=None,
    )
    told = f"{EPOCHS} epochs of {STEPS} batches of {size}, only deterministic kernels"
    report(Chosen("to verify", told, "own data and network, few images"))
    del plan
    where = options.out.parent if options.out else RUNS.parent
    where.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".verify-resume-", dir=where) as name:
        whole, killed = Path(name, "whole"), Path(name, "killed")
        report(Note(f"1 of 3: a run of {EPOCHS * STEPS} steps to its end"))
        _train(replace(small, out=whole))
        report(Note(f"2 of 3: the same, killed (SIGKILL) after step {KILLED_AFTER}"))
        _train(replace(small, out=killed), kill_after=KILLED_AFTER)
        report(Note("3 of 3: the same command again"))
        _train(replace(small, out=killed))
        ends = [end_of(folder) for folder in (whole, killed)]
    compare(*ends)
    return {
        "equal": True,
        "compared": list(ends[0]),
        "steps": EPOCHS * STEPS,
        "killed_after": KILLED_AFTER,
        "model": train.choose(options)[1],
        "seconds": time.monotonic() - began,
    }


def compare(whole: Mapping[str, object], killed: Mapping[str, object]) -> None:
    """Compares what :func:`end_of` gave of two runs.

    Raises:
        FileMismatch: they differ; all that does is named.
    """
    different = [name for name, value in whole.items() if killed.get(name) != value]
    if different:
        raise FileMismatch(
            f"resume is NOT exact on this machine: {', '.join(different)} differ from those of "
            "a run never killed",
            hint="report it, with the network, the device and what `alexkit doctor` says",
        )


def _train(options: TrainOptions, kill_after: int | None = None) -> None:
    """Trains in a process of its own, to the end or until it is killed after a step."""
    # Forked from one that has loaded torch, once for all, and has used no GPU: one that has
    # cannot be forked.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    here, there = server.Pipe()
    child = server.Process(target=_child, args=(options, there, kill_after), daemon=True)
    child.start()
    there.close()
    try:
        heard = _hear(here, child)
        if isinstance(heard, AlexkitError):
            raise heard
        if kill_after is None:
            child.join()
            expected = 0
        else:
            child.kill()
            child.join()
            expected = -9
        if child.exitcode != expected:
            raise WorkerFailed(
                f"a training process ended with {child.exitcode}, not {expected}",
                hint="train without --verify-resume to see why",
            )
    finally:
        if child.is_alive():
            child.kill()
        child.join()


def _hear(pipe: Connection, child: BaseProcess) -> object:
    try:
        return pipe.recv()
    except EOFError:
        child.join()
        raise WorkerFailed(
            f"a training process ended with {child.exitcode} before it was done",
            hint="train without --verify-resume to see why",
        ) from None


def _child(options: TrainOptions, pipe: Connection, kill_after: int | None) -> None:
    """Says how it went; to be killed, says so after a step and waits for it."""
    steps = 0

    def report(event: Event, /) -> None:
        nonlocal steps
        steps += isinstance(event, StageAdvanced)
        if steps == kill_after:
            pipe.send("kill me")
            pipe.recv()

    try:
        train_few(options, report)
    except AlexkitError as error:
        pipe.send(error)
    else:
        pipe.send("done")


def train_few(options: TrainOptions, report: Reporter = silent) -> None:
    """The run that ``options`` ask for, on :func:`few_images`, saved after every step."""
    plan = few_images(train.make_plan(options, silent))
    with RunDir.open("train", options, Remembering(silent)) as folder:
        fit = FitRun(plan, folder, report)
        fit.saver.rule = SaveRule(least_seconds=0.0, cost_ratio=0.0)
        folder.finish(fit())


def few_images(plan: Plan) -> Plan:
    """The plan with :data:`STEPS` batches to learn from and one to judge by, spread evenly
    over the rows, so over classes where the source has them in order."""
    held = plan.holdout
    train_rows = _spread(held.train, STEPS * plan.batch_size)
    judged = _spread(held.judged, plan.batch_size)
    return replace(plan, holdout=replace(held, train=train_rows, judged=judged), ten_view=False)


def _spread(rows: Rows, count: int) -> Rows:
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.int64)
    return rows[places]


def end_of(folder: Path) -> Mapping[str, object]:
    """What a run came to: weights and last checkpoint (weights, momentum, average) by their
    SHA-256, the metrics but for times."""
    found: dict[str, object] = {
        path.name: file_sha256(path) for path in sorted((folder / "weights").iterdir())
    }
    # The name tells the step; momentum, weights and their average are in it.
    last = max((folder / "state").glob("step-*.json"))
    found["optimiser"] = last.stem, json.loads(last.read_text())["tensors"]["sha256"]
    lines = [line.split(",") for line in (folder / METRICS).read_text().splitlines()]
    kept = [i for i, name in enumerate(lines[0]) if name not in TIMED]
    found["metrics"] = [[line[i] for i in kept] for line in lines]
    return found
