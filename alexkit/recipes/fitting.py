"""What ``train`` and ``finetune`` share: epochs, judging, saving, continuing.

The loop itself is :func:`alexkit.training.loop.fit`; here is decided what is due after a
step and after an epoch. All state is in :class:`Progress`, the weights, the momentum and the
schedule; order, augmentation and dropout follow from (seed, epoch, row, step), so a run that
is continued from any checkpoint ends with the same weights as one that was never stopped.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from alexkit.errors import Diverged, FileMismatch
from alexkit.events import EpochDone, Note, Reporter, Saved, Stage, Warned, silent
from alexkit.images.batches import Batch, epoch_order
from alexkit.models.weights import read_state, write_weights
from alexkit.recipes.feed import Pixels
from alexkit.recipes.inputs import data_record, tell_pack
from alexkit.recipes.interrupts import Stop, stop_requests
from alexkit.recipes.journal import Journal
from alexkit.recipes.ledger import LEDGER, Ledger
from alexkit.recipes.meter import Meter
from alexkit.recipes.options import TrainOptions
from alexkit.recipes.plan import Plan
from alexkit.recipes.predictions import PREDICTIONS, Predictions
from alexkit.recipes.progress import Progress
from alexkit.recipes.reading import resident_pixels
from alexkit.recipes.reporting import report_at_the_end
from alexkit.recipes.run_dir import Elsewhere, Remembering, RunDir
from alexkit.recipes.run_state import RunState
from alexkit.recipes.space import tell_space
from alexkit.recipes.ten_views import judge_by_ten_views
from alexkit.training.checkpoint import Checkpoint, CheckpointFolder, SaveRule
from alexkit.training.loop import StepResult, fit, validate
from alexkit.training.saving import Saver
from alexkit.training.schedule import lr_at_step

MOST_SKIPPED = 3
"""Steps in a row whose loss or gradient is not finite before the last good state is taken."""


class FitRun:
    """One ``train`` or ``finetune`` in its run folder.

    All processes that share the batches go through the same steps; the first one writes.
    """

    def __init__(self, plan: Plan, run: RunDir | Elsewhere, report: Reporter) -> None:
        self.plan = plan
        self.placement = plan.placement
        self.run = run
        self.report = report
        self.state = RunState(plan)
        self.net = self.state.net
        self.progress = Progress(keep_last=plan.keep_last)
        self.journal = Journal(run.path)
        ledger = run.path / LEDGER if self.placement.leads else None
        self.ledger = Ledger(ledger, strict=plan.strict, report=report)
        self.checkpoints = CheckpointFolder(run.path / "state")
        self.saver = Saver(self.checkpoints, SaveRule())
        self.feed = plan.feed(plan, self.ledger)
        self.meter = Meter(plan.source, plan.threads, plan.epochs, report)
        self.predictions = Predictions(plan.source, plan.backbone.classes)
        self.rolled_back = False

    def __call__(self) -> dict[str, Any]:
        """Fits until the last epoch is done and returns the result.

        Raises:
            Interrupted: by a signal or the time allowed; everything up to the last step is
                saved.
            Diverged: the loss is no number; the last good checkpoint is named.
            OutOfSpace: the disk lacks room for what the run will write, or is full.
            WorkerFailed: a process that shares the batches is dead, or failed.
        """
        if self.placement.leads:
            tell_space(self.run.path, self.plan.state_bytes, self.state.copies, self.report)
        self._restore()
        try:
            with self.placement.blaming(), stop_requests(self.plan.max_seconds) as stop:
                while self.progress.epoch < self._epochs:
                    try:
                        self._train_epoch(stop)
                        self._judge_epoch(stop)
                    except Diverged as problem:
                        self._roll_back(problem)
                self._write_weights("last")
                self._save()
                self.saver.wait()
                ten_view = self._judge_views(stop)
        finally:
            self.saver.close()
            self.journal.close()
        self.ledger.close()
        return self._result() | ({"ten_view": ten_view} if ten_view else {})

    def _train_epoch(self, stop: Stop) -> None:
        plan, progress = self.plan, self.progress
        name, total = f"epoch {progress.epoch + 1}/{plan.epochs}", len(plan.holdout.train)
        done = min(progress.batch * plan.batch_size, total)
        with Stage(self.report, name, total, "images", done) as stage:
            for step in self._steps():
                progress.add(step)
                stage.reach(min(stage.done + plan.batch_size, total), self._live())
                if step.applied and self.state.average:
                    self.state.average.update(self.net)
                self._look_at(step)
                due = self._stop_if_asked(stop, self.placement.leads and self.saver.due())
                # Weights that lead to no number may be on their way to none themselves.
                if not progress.in_a_row and due:
                    self._save()

    def _look_at(self, step: StepResult) -> None:
        if step.applied or not step.n:
            return
        told = (
            f"step {step.step}: the loss is {step.loss}, "
            f"the length of the gradient {step.gradient_norm}"
        )
        self.report(Warned(f"{told}; the step is not applied"))
        if self.progress.in_a_row >= MOST_SKIPPED:
            raise Diverged(told, hint="use a lower --lr")

    def _stop_if_asked(self, stop: Stop, due: bool = False) -> bool:
        """Whether a checkpoint is due, unless a process is to stop: then all do."""
        stopping, due = self.placement.agreed(bool(stop), due)
        if stopping:
            stop.ask()
            self._save()
            self.saver.wait()
            self._write_weights("last")
            stop.check(f"saved before step {self._step} in {self.run.path}")
        return due

    @property
    def _epochs(self) -> int:
        """All of the plan, or those done where the best is long ago."""
        done, best, patience = self.progress.epoch, self.progress.best, self.plan.patience
        stalled = best is not None and patience and done - best["epoch"] >= patience
        return done if stalled else self.plan.epochs

    @property
    def _step(self) -> int:
        return self.progress.epoch * self.plan.steps_per_epoch + self.progress.batch

    def _steps(self) -> Iterator[StepResult]:
        plan, progress = self.plan, self.progress
        order = epoch_order(plan.holdout.train, seed=plan.seed, epoch=progress.epoch)
        left = order[progress.batch * plan.batch_size :]
        batches, prepare = self.feed.learning(left, progress.epoch)
        return fit(
            self.net,
            self.meter.watch(batches),
            plan.optimizer,
            prepare=prepare,
            loss_fn=plan.loss(),
            lr=lambda step: lr_at_step(plan.schedule, step, plan.steps_per_epoch),
            seed=plan.seed,
            first_step=self._step,
            rescale=plan.rescale,
            autocast=plan.autocast,
            placement=self.placement,
        )

    def _judge_epoch(self, stop: Stop) -> None:
        """Validates, then closes the epoch: metrics, schedule, best weights."""
        plan, progress, sums = self.plan, self.progress, self.progress.sums
        scores = self._validate(stop)
        if not math.isfinite(scores["loss"]):
            raise Diverged(
                f"epoch {progress.epoch + 1}: the held-out loss is {scores['loss']}",
                hint="use a lower --lr",
            )
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
            self.predictions.share(self.placement.texts)
            if self.placement.leads:
                self.predictions.write(self.run.path / PREDICTIONS)
        if self.placement.leads:
            self.journal.add(progress.metrics)
        shown = ("train_loss", "train_top1", "loss", "top1", "top5")
        self.report(EpochDone(progress.epoch, {name: row[name] for name in shown}))
        told = plan.watch(row)
        if told is not None:
            self.report(Warned(told))
        if self.placement.agreed(self.placement.leads and self.saver.due())[0]:
            self._save()

    def _validate(self, stop: Stop) -> dict[str, float]:
        self.predictions.clear()
        batches, made = self.feed.judging(self.plan.holdout.judged)

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            self._stop_if_asked(stop)
            return made(batch)

        return validate(
            self.state.judged,
            batches,
            prepare=prepare,
            autocast=self.plan.autocast,
            seen=self.predictions.add,
            placement=self.placement,
        )

    def _judge_views(self, stop: Stop) -> dict[str, float] | None:
        if not self.plan.ten_view:
            return None
        # A copy, as the last weights are those to save if it is stopped now.
        best = copy.deepcopy(self.state.judged)
        found = None
        if self.placement.leads:
            found = Checkpoint(0, {"best": read_state(self._weights_file("best"))[0]}, {})
        found = self.placement.spread(found)
        assert found is not None
        self.state.load(best, found.tensors["best"])

        def asked() -> None:
            self._stop_if_asked(stop)

        return judge_by_ten_views(best, self.plan, self.ledger, asked, self.report)

    def _live(self) -> dict[str, float]:
        sums = self.progress.sums
        images = max(sums.get("images", 0.0), 1.0)
        return {
            "loss": sums.get("loss", 0.0) / images,
            "top-1": sums.get("right", 0.0) / images,
            "waiting": sums["waiting"] / max(sums["seconds"], 1e-9),
            "minutes left": self._seconds_left() / 60,
        }

    def _seconds_left(self) -> float:
        """Of the steps of the whole run, as long as those of this epoch have taken."""
        steps = self.plan.epochs * self.plan.steps_per_epoch - self._step
        return steps * self.progress.sums["seconds"] / max(self.progress.batch, 1)

    def _save(self) -> None:
        # One pass over the weights, beside the copy that a save makes anyway.
        if not self.state.finite():
            return  # what was saved before is the last good state
        self.ledger.share(self.placement.texts)
        checkpoint = self.state.checkpoint(self._step, self.progress)
        if not self.placement.leads:
            return
        self.saver.save(checkpoint)
        # With the checkpoint, not with the epoch: on a few images drawing, 0.13 s, would be a
        # good part of one.
        self.journal.draw(self.progress.metrics)

    def _restore(self, *, always: bool = False) -> None:
        """All processes go on from what the first one finds, if the run is continued."""
        checkpoint = None
        if self.placement.leads and (always or self.run.resumed):
            found = self.checkpoints.latest()
            for damage in found.skipped if found else ():
                self.report(Warned(f"{damage}; the checkpoint before it is used"))
            checkpoint = found.checkpoint if found else None
        checkpoint = self.placement.spread(checkpoint)
        if checkpoint is None:
            if self.run.resumed:
                self.report(Note("no checkpoint was written yet: beginning again"))
            return
        self.saver.last_good = checkpoint.step
        self.progress = self.state.restore(checkpoint)
        self.report(
            Note(f"continuing after epoch {self.progress.epoch}, batch {self.progress.batch}")
        )

    def _write_weights(self, name: str) -> None:
        state = self.state.canonical(self.state.judged)
        if self.placement.leads:
            write_weights(self._weights_file(name), state, self.plan.backbone.metadata())

    def _weights_file(self, name: str) -> Path:
        return self.run.path / "weights" / f"{name}.safetensors"

    def _roll_back(self, problem: Diverged) -> None:
        """Takes the last good state once: a passing fault of the machine does not come again.

        Raises:
            Diverged: there is none, or it led here already.
        """
        self.saver.wait()
        (good, *_) = self.placement.texts(json.dumps(self.saver.last_good))
        if json.loads(good) is None:
            raise Diverged(f"training diverged: {problem.message}", hint=problem.hint)
        kept = f"step {good} in {self.checkpoints.path}"
        if self.rolled_back:
            raise Diverged(
                f"training diverged: {problem.message}; the last good checkpoint is of {kept}",
                hint=problem.hint,
            ) from problem
        self.rolled_back = True
        self.report(Warned(f"{problem.message}; back to {kept}, once"))
        self._restore(always=True)

    def _result(self) -> dict[str, Any]:
        best = self.progress.best
        assert best is not None, "a finished run has at least one epoch"
        plan = self.plan
        stopped = f"{self.progress.epoch} of {plan.epochs} epochs are done"
        if self.progress.epoch < plan.epochs:
            stopped += f", and none of the last {plan.patience} was better"
        self.report(Note(f"stopped: {stopped}"))
        self.report(Saved("weights", str(self._weights_file("best"))))
        return {
            "top1": best["top1"],
            "top5": best["top5"],
            "split": plan.holdout.split.value,
            "n": int(best["judged"]),
            "best_epoch": int(best["epoch"]),
            "epochs": plan.epochs,
            "model": plan.backbone.name,
            "classes": len(plan.backbone.classes),
            "train_images": len(plan.holdout.train),
            "bad": self.ledger.bad,
            "repaired": self.ledger.repaired,
            "skipped_steps": self.progress.skipped,
            "seconds": self.progress.seconds,
            "run": str(self.run.path),
            "stopped": stopped,
        }


def fit_in_run_dir(options: TrainOptions, plan: Plan, report: Remembering) -> dict[str, Any]:
    """Carries a plan out in the run folder of ``options``; all its processes together."""
    tell_pack(plan.source, plan.backbone.preprocess, report)
    placement = plan.placement
    if not placement.leads:
        told = json.loads(placement.texts("")[0])
        if told["fingerprint"] != data_record(plan.source)["fingerprint"]:
            raise FileMismatch(
                f"rank {placement.rank} has other images than rank 0",
                hint="give every machine the same data",
            )
        return FitRun(plan, Elsewhere(Path(told["path"]), told["resumed"]), silent)()
    if plan.feed is Pixels and placement.world == 1:
        resident = resident_pixels(plan.source, plan.backbone.net.slots[0], report)
        plan = dataclasses.replace(plan, resident=resident)
    with RunDir.open("train", options, report) as folder:
        # The root of a list is its folder; what was named is what opens it again.
        named = {"path": os.path.abspath(options.data or "")}
        folder.note("data", data_record(plan.source) | named)
        data = data_record(plan.source)["fingerprint"]
        told = {"path": str(folder.path), "resumed": folder.resumed, "fingerprint": data}
        placement.texts(json.dumps(told))
        result = FitRun(plan, folder, report)()
        folder.finish(result)
        report_at_the_end(folder.path, report, plan.source)
    return result
