"""A training run that is killed again and again and continued each time, and one never killed.

    python -m tests.recipes.killed_training OUT KILLS SEED '{"data": "photos", …}' WHOLE

This process imports everything once and forks a child for each life of the run, so that a life
costs no start of Python. A child says each step it has done; after a random number of them,
and a random fraction of a second, it gets SIGKILL: in a step, in a save, in validation, while
weights are written. The last child is left alone. The kills and where they hit are printed.
The same run, never killed, goes to WHOLE.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import signal
import sys
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from alexkit.events import Event, StageAdvanced, silent
from alexkit.recipes import train
from alexkit.recipes.fitting import FitRun
from alexkit.recipes.options import TrainOptions, from_values
from alexkit.recipes.run_dir import Remembering, RunDir, read_record
from alexkit.training.checkpoint import SaveRule

MOST_STEPS = 2
"""Of a life, before it is killed."""
SAVE_SECONDS = 0.2


def live(options: TrainOptions, pipe: int) -> None:
    """Trains, or continues, saving often; writes a byte for each step."""

    def report(event: Event, /) -> None:
        if isinstance(event, StageAdvanced):
            os.write(pipe, b".")

    plan = train.make_plan(options, silent)
    with RunDir.open("train", options, Remembering(silent)) as folder:
        fit = FitRun(plan, folder, report)
        fit.saver.rule = SaveRule(least_seconds=SAVE_SECONDS, cost_ratio=0.0)
        folder.finish(fit())


def one_life(options: TrainOptions, steps: int | None, wait: float) -> bool:
    """True if it was killed, False if it came to its end; ``steps`` None lets it live."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reading)
            live(options, writing)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with open(reading, "rb", buffering=0) as told:
        seen = 0
        while (steps is None or seen < steps) and (heard := told.read(1)):
            seen += len(heard)
        if steps is not None:
            time.sleep(wait)
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise SystemExit(f"a life ended with {os.WEXITSTATUS(status)}")
    return False


def load_writers() -> None:
    """What a run loads with its first epoch, a second's worth, so that no life has to."""
    if find_spec("tensorboard"):
        for name in ("compat.proto.event_pb2", "summary.writer.event_file_writer"):
            importlib.import_module(f"tensorboard.{name}")


def main() -> None:
    load_writers()
    out, kills, seed, words, whole = sys.argv[1:]
    options = from_values(TrainOptions, {**json.loads(words), "out": Path(out)})
    draw = random.Random(int(seed))
    killed = 0
    while killed < int(kills):
        steps, wait = draw.randint(0, MOST_STEPS), draw.random()
        if not one_life(options, steps, wait * 0.5):
            raise SystemExit(f"the run ended after {killed} kills of {kills}")
        killed += 1
        # A life that was ended before it had a folder left nothing to say so.
        if Path(out, "run.json").exists():
            assert read_record(Path(out))["state"] == "running"
        there = sorted(path.stem for path in Path(out, "state").glob("step-*.json"))
        sys.stdout.write(f"kill {killed}: after {steps} steps; checkpoints {there}\n")
    one_life(options, None, 0.0)
    one_life(replace(options, out=Path(whole)), None, 0.0)


if __name__ == "__main__":
    main()
