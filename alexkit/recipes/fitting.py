"""What ``train`` and ``finetune`` share: epochs, judging, saving, continuing.

The loop itself is :func:`alexkit.training.loop.fit`; here is decided what is due after a
step and after an epoch. All state is in :class:`Progress`, the weights, the momentum and the
schedule; order, augmentation and dropout follow from (seed, epoch, row, step), so a run that
is continued from any checkpoint ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import csv
import io
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alexkit.errors import Diverged
from alexkit.events import (
    EpochDone,
    Note,
    Reporter,
    Saved,
    StageAdvanced,
    StageFinished,
    StageStarted,
    Warned,
)
from alexkit.images.augment import augment
from alexkit.images.batches import Batch, ToSquare, epoch_order, read_batches
from alexkit.images.draws import Rows
from alexkit.images.prefetch import on_device
from alexkit.images.source import ImageSource
from alexkit.models.weights import write_weights
from alexkit.models.zoo import Backbone
from alexkit.recipes.inputs import Holdout, data_record, tell_pack
from alexkit.recipes.interrupts import Stop, stop_requests
from alexkit.recipes.ledger import LEDGER, Ledger
from alexkit.recipes.meter import Meter
from alexkit.recipes.options import FitOptions
from alexkit.recipes.run_dir import Remembering, RunDir
from alexkit.reports.plots import draw_curves
from alexkit.training.checkpoint import Checkpoint, CheckpointFolder, SaveRule
from alexkit.training.loop import StepResult, fit, validate
from alexkit.training.optim import load_optimizer_state, optimizer_state
from alexkit.training.schedule import Schedule, lr_at_step

METRICS = "metrics.csv"
CURVES = "curves.png"
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Plan:
    """Everything a fit needs, settled before its run folder is made.

    Attributes:
        backbone: the network, on its devices, with the head it is to have.
        source: the images.
        holdout: which of its rows to learn from, and which to judge by.
        optimizer, schedule: of this network.
        epochs, batch_size, threads, seed: as the options, defaults filled in.
        color: whether training pixels get the paper's colour noise.
        strict: the first bad image is an error.
    """

    backbone: Backbone
    source: ImageSource
    holdout: Holdout
    optimizer: torch.optim.SGD
    schedule: Schedule
    epochs: int
    batch_size: int
    threads: int
    seed: int
    color: bool
    strict: bool

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one pass, the last one maybe smaller."""
        return math.ceil(len(self.holdout.train) / self.batch_size)


@dataclass
class Progress:
    """Where a run stands: epochs done, batches done of the next one, and what came of them.

    ``sums`` are over the images of the unfinished epoch; ``metrics`` has a row for each
    finished one; ``best`` is the row with the highest held-out top-1, the earliest of equals.
    """

    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)

    @property
    def best(self) -> dict[str, float] | None:
        return max(self.metrics, key=lambda row: row["top1"], default=None)

    def add(self, step: StepResult) -> None:
        """Counts one finished step."""
        self.batch += 1
        self.seconds += step.seconds
        told = {"images": step.n, "loss": step.loss * step.n, "right": step.top1 * step.n}
        told |= {"seconds": step.seconds, "waiting": step.seconds_waiting}
        for name, value in told.items():
            self.sums[name] = self.sums.get(name, 0.0) + value


class FitRun:
    """One ``train`` or ``finetune`` in its run folder."""

    def __init__(self, plan: Plan, run: RunDir, report: Reporter) -> None:
        self.plan = plan
        self.run = run
        self.report = report
        self.net: nn.Module = plan.backbone.net
        self.progress = Progress()
        self.ledger = Ledger(run.path / LEDGER, strict=plan.strict, report=report)
        self.checkpoints = CheckpointFolder(run.path / "state")
        self.save_rule = SaveRule()
        self.meter = Meter(plan.source, plan.threads, plan.epochs, report)
        self.last_good: int | None = None

    def __call__(self) -> dict[str, Any]:
        """Fits until the last epoch is done and returns the result.

        Raises:
            Interrupted: by a signal; everything up to the last step is saved.
            Diverged: the loss is no number; the last good checkpoint is named.
        """
        if self.run.resumed:
            self._restore()
        with stop_requests() as stop:
            while self.progress.epoch < self.plan.epochs:
                try:
                    self._train_epoch(stop)
                except Diverged as problem:
                    raise self._with_last_good(problem) from problem
                self._judge_epoch()
        self._write_weights("last")
        self._save()
        self.ledger.close()
        return self._result()

    def _train_epoch(self, stop: Stop) -> None:
        plan, progress = self.plan, self.progress
        stage = f"epoch {progress.epoch + 1}/{plan.epochs}"
        began = time.monotonic()
        done = min(progress.batch * plan.batch_size, len(plan.holdout.train))
        self.report(StageStarted(stage, len(plan.holdout.train), "images", done))
        for step in self._steps():
            progress.add(step)
            done = min(done + plan.batch_size, len(plan.holdout.train))
            self.report(StageAdvanced(stage, done, self._live()))
            if stop:
                self._save()
                self._write_weights("last")
                stop.check(f"saved after step {step.step} in {self.run.path}")
            if self.save_rule.due():
                self._save()
        self.report(StageFinished(stage, done, time.monotonic() - began))

    def _steps(self) -> Iterator[StepResult]:
        plan, progress = self.plan, self.progress
        order = epoch_order(plan.holdout.train, seed=plan.seed, epoch=progress.epoch)
        preprocess = plan.backbone.preprocess
        batches = self._read(order[progress.batch * plan.batch_size :], preprocess.train_square)
        epoch = progress.epoch

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            self._note_bad(batch)
            x = augment(
                batch.pixels,
                preprocess,
                seed=plan.seed,
                epoch=epoch,
                rows=batch.rows,
                color=plan.color,
            )
            return x, batch.labels

        return fit(
            self.net,
            self.meter.watch(batches),
            plan.optimizer,
            prepare=prepare,
            loss_fn=nn.functional.cross_entropy,
            lr=lambda step: lr_at_step(plan.schedule, step, plan.steps_per_epoch),
            seed=plan.seed,
            first_step=epoch * plan.steps_per_epoch + progress.batch,
        )

    def _judge_epoch(self) -> None:
        """Validates, then closes the epoch: metrics, schedule, best weights."""
        plan, progress, sums = self.plan, self.progress, self.progress.sums
        scores = self._validate()
        images = max(sums.get("images", 0.0), 1.0)
        last_step = (progress.epoch + 1) * plan.steps_per_epoch - 1
        lr = lr_at_step(plan.schedule, last_step, plan.steps_per_epoch)
        row = {
            "epoch": progress.epoch + 1,
            "lr": lr,
            "train_loss": sums.get("loss", 0.0) / images,
            "train_top1": sums.get("right", 0.0) / images,
            "loss": scores["loss"],
            "top1": scores["top1"],
            "top5": scores["top5"],
            "judged": scores["n"],
            "images_per_second": images / max(sums.get("seconds", 0.0), 1e-9),
            "waiting": sums.get("waiting", 0.0) / max(sums.get("seconds", 0.0), 1e-9),
        }
        if plan.schedule.observe(1 - scores["top1"]):
            self.report(
                Note(f"epoch {row['epoch']}: the error stalls, the learning rate drops")
            )
        progress.metrics.append(row)
        progress.epoch, progress.batch, progress.sums = progress.epoch + 1, 0, {}
        if progress.best is row:
            self._write_weights("best")
        write_metrics(self.run.path / METRICS, progress.metrics)
        shown = ("train_loss", "train_top1", "loss", "top1", "top5")
        self.report(EpochDone(progress.epoch, {name: row[name] for name in shown}))
        if self.save_rule.due():
            self._save()

    def _validate(self) -> dict[str, float]:
        plan, preprocess = self.plan, self.plan.backbone.preprocess

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            self._note_bad(batch)
            return preprocess.normalise(batch.pixels), batch.labels

        batches = self._read(plan.holdout.judged, preprocess.square)
        return validate(self.net, batches, prepare=prepare)

    def _read(self, rows: Rows, to_square: ToSquare) -> Iterator[Batch]:
        plan, preprocess = self.plan, self.plan.backbone.preprocess
        batches = read_batches(
            plan.source,
            rows,
            to_square,
            batch_size=plan.batch_size,
            threads=plan.threads,
            exif=preprocess.exif,
            at_least=preprocess.at_least,
            pin=self._device.type == "cuda",
        )
        return self.ledger.watch(on_device(batches, self._device))

    def _note_bad(self, batch: Batch) -> None:
        for bad in batch.bad:
            self.ledger.add(bad.path, bad.reason, LEFT_OUT)

    def _live(self) -> dict[str, float]:
        sums = self.progress.sums
        images = max(sums["images"], 1.0)
        return {
            "loss": sums["loss"] / images,
            "top-1": sums["right"] / images,
            "waiting": sums["waiting"] / max(sums["seconds"], 1e-9),
        }

    @property
    def _device(self) -> torch.device:
        return self.plan.backbone.net.slots[0]

    def _save(self) -> None:
        plan, progress = self.plan, self.progress
        buffers, rates = optimizer_state(plan.optimizer, self.net)
        step = progress.epoch * plan.steps_per_epoch + progress.batch
        told = self.checkpoints.save(
            Checkpoint(
                step=step,
                tensors={
                    "weights": plan.backbone.net.canonical_state_dict(),
                    "optimizer": buffers,
                },
                scalars={
                    "progress": asdict(progress),
                    "schedule": plan.schedule.state_dict(),
                    "rates": rates,
                },
            )
        )
        self.last_good = step
        self.save_rule.saved(told.seconds)
        # With the checkpoint, not with the epoch: on a few photos drawing, 0.13 s, would be a
        # good part of one.
        if progress.metrics:
            draw_curves(progress.metrics, self.run.path / CURVES)

    def _restore(self) -> None:
        found = self.checkpoints.latest()
        if found is None:
            self.report(Note("no checkpoint was written yet: beginning again"))
            return
        for damage in found.skipped:
            self.report(Warned(f"{damage}; the checkpoint before it is used"))
        plan, tensors, scalars = self.plan, found.checkpoint.tensors, found.checkpoint.scalars
        self.last_good = found.checkpoint.step
        plan.backbone.net.load_canonical(tensors["weights"])
        load_optimizer_state(plan.optimizer, self.net, tensors["optimizer"], scalars["rates"])
        plan.schedule.load_state_dict(scalars["schedule"])
        self.progress = Progress(**scalars["progress"])
        self.report(
            Note(f"continuing after epoch {self.progress.epoch}, batch {self.progress.batch}")
        )

    def _write_weights(self, name: str) -> None:
        path = self.run.path / "weights" / f"{name}.safetensors"
        backbone = self.plan.backbone
        write_weights(path, backbone.net.canonical_state_dict(), backbone.metadata())

    def _with_last_good(self, problem: Diverged) -> Diverged:
        where = ""
        if self.last_good is not None:
            kept = f"step {self.last_good} in {self.checkpoints.path}"
            where = f"; the last good checkpoint is of {kept}"
        return Diverged(f"training diverged: {problem.message}{where}", hint=problem.hint)

    def _result(self) -> dict[str, Any]:
        best = self.progress.best
        assert best is not None, "a finished run has at least one epoch"
        plan = self.plan
        self.report(Saved("weights", str(self.run.path / "weights" / "best.safetensors")))
        return {
            "top1": best["top1"],
            "top5": best["top5"],
            "split": plan.holdout.split.value,
            "n": int(best["judged"]),
            "best_epoch": int(best["epoch"]),
            "epochs": plan.epochs,
            "model": plan.backbone.spec.name,
            "classes": len(plan.backbone.classes),
            "train_images": len(plan.holdout.train),
            "bad": self.ledger.bad,
            "repaired": self.ledger.repaired,
            "seconds": self.progress.seconds,
            "run": str(self.run.path),
        }


def fit_in_run_dir(
    command: str, options: FitOptions, plan: Plan, report: Remembering
) -> dict[str, Any]:
    """Carries a plan out in the run folder of ``options``."""
    tell_pack(plan.source, plan.backbone.preprocess, report)
    with RunDir.open(command, options, report) as folder:
        # The root of a list is its folder; what was named is what opens it again.
        named = {"path": os.path.abspath(options.data or "")}
        folder.note("data", data_record(plan.source) | named)
        result = FitRun(plan, folder, report)()
        folder.finish(result)
    return result


def write_metrics(path: Path, rows: list[dict[str, float]]) -> None:
    """Writes ``metrics.csv`` as a whole, one row an epoch."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text.getvalue(), encoding="utf-8")
    partial.replace(path)
