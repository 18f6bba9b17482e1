"""What may not lose a run: a fault, the end of the time allowed, a disk without room."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from alexkit.cli.app import as_ours, run
from alexkit.errors import Diverged, OutOfSpace
from alexkit.events import EpochDone, Event, Note, Reporter, Warned, silent
from alexkit.images.batches import Batch
from alexkit.images.draws import Rows
from alexkit.recipes.feed import Pixels
from alexkit.recipes.fitting import FitRun
from alexkit.recipes.options import TrainOptions, from_values
from alexkit.recipes.plan import Plan
from alexkit.recipes.run_dir import Remembering, RunDir, read_record
from alexkit.recipes.train import make_plan
from alexkit.training.checkpoint import SaveRule
from alexkit.training.loop import Prepare
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import ends_of, working_in

# Averaged weights, rising resolution, dropout, running statistics: all must be continued.
TRAIN = ["train", "photos", "--recipe", "fast", "--head", "gap", "--epochs", "3"]
TRAIN += ["--batch-size", "4", "--lr", "0.01"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("safety")
    photos_in(folder / "photos", {"train/ant": 4, "train/bee": 4, "val/ant": 2, "val/bee": 2})
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> list[str]:
    """The weights of a run that nothing happened to."""
    with working_in(place):
        assert run([*TRAIN, "--out", "whole"]) == 0
    return ends_of(place / "whole")


def test_a_run_in_slices_of_no_time_ends_with_the_same_weights(
    place: Path, whole: list[str], capsys: Capsys
) -> None:
    with working_in(place):
        for _ in range(3):
            assert run([*TRAIN, "--out", "sliced", "--max-time", "0"]) == 130
            *_, error, hint = capsys.readouterr().err.splitlines()
            assert error.startswith("error: stopped by --max-time; saved before step ")
            assert hint.startswith("hint: the same command continues")
        assert run([*TRAIN, "--out", "sliced"]) == 0
    assert ends_of(place / "sliced") == whole
    assert "error" not in read_record(place / "sliced")


def test_a_checkpoint_cut_by_hand_is_told_and_the_one_before_is_used(
    place: Path, whole: list[str], capsys: Capsys
) -> None:
    with working_in(place):
        for _ in range(2):
            assert run([*TRAIN, "--out", "cut", "--max-time", "0"]) == 130
        first, second = sorted((place / "cut" / "state").glob("step-*.safetensors"))
        os.truncate(second, second.stat().st_size // 2)
        capsys.readouterr()
        assert run([*TRAIN, "--out", "cut"]) == 0
    told = capsys.readouterr().err
    assert f"warning: {second.name} has " in told
    assert "the checkpoint before it is used" in told
    assert f"continuing after epoch 0, batch {int(first.stem[5:])}" in told
    assert ends_of(place / "cut") == whole


class NoNumberInABatch(Pixels):
    """Pixels, one of which is no number in the second batch of the first epoch."""

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        batches, made = super().learning(rows, epoch)
        seen: list[int] = []

        def prepare(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            x, y = made(batch)
            seen.append(len(x))
            if epoch == 0 and len(seen) == 2:
                x[0, 0, 100, 100] = torch.nan
            return x, y

        return batches, prepare


def test_a_batch_with_no_number_in_it_is_not_learned_from(place: Path) -> None:
    words = {"data": place / "photos", "model": "alexnet-bn", "head": "gap"}
    words |= {"out": place / "nan", "epochs": 2, "batch_size": 4, "lr": 0.01}
    options = from_values(TrainOptions, words)
    plan = dataclasses.replace(make_plan(options, silent), feed=NoNumberInABatch)
    told: list[Event] = []
    with RunDir.open("train", options, Remembering(silent)) as folder:
        result = FitRun(plan, folder, told.append)()
    assert result["skipped_steps"] == 1
    (warning,) = [event.text for event in told if isinstance(event, Warned)]
    assert warning.startswith("step 1: the loss is nan")
    assert warning.endswith("the step is not applied")
    state = plan.backbone.net.state_dict()
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_fault_that_stays_ends_the_run_and_names_the_last_good_state(place: Path) -> None:
    with pytest.raises(Diverged, match=r"the last good checkpoint is of step \d in .*staying"):
        faulty_run(place, "staying", faults=1000)
    assert list((place / "staying" / "state").glob("step-*.json"))


def small_run(place: Path, out: Path) -> TrainOptions:
    """Of three epochs of two steps."""
    words = {"data": place / "photos", "model": "alexnet-bn", "head": "gap", "out": out}
    return from_values(TrainOptions, {**words, "epochs": 3, "batch_size": 4, "lr": 0.01})


def saving_often(plan: Plan, options: TrainOptions, report: Reporter) -> FitRun:
    with RunDir.open("train", options, Remembering(silent)) as folder:
        fit = FitRun(plan, folder, report)
        fit.saver.rule = SaveRule(least_seconds=0.0, cost_ratio=0.0)
        folder.finish(fit())
    return fit


def faulty_run(place: Path, out: str, *, faults: int) -> FitRun:
    """A run whose weights turn to no number after its third step, ``faults`` times."""
    options = small_run(place, place / out)
    plan = make_plan(options, silent)
    (weight, *_) = plan.backbone.net.parameters()
    steps: list[int] = []

    def fault() -> None:
        steps.append(1)
        if 3 <= len(steps) < 3 + faults and weight.grad is not None:
            weight.grad.fill_(torch.nan)

    plan = dataclasses.replace(plan, rescale=fault if faults else None)
    return saving_often(plan, options, silent)


@pytest.fixture(scope="module")
def sound(place: Path) -> list[str]:
    """The weights of that run without a fault."""
    assert not faulty_run(place, "sound", faults=0).rolled_back
    return ends_of(place / "sound")


def test_a_passing_fault_is_rolled_back_to_the_bit(place: Path, sound: list[str]) -> None:
    assert faulty_run(place, "passing", faults=1).rolled_back
    assert ends_of(place / "passing") == sound


def test_a_disk_that_fills_up_in_mid_run_loses_nothing(
    place: Path, sound: list[str], filling_disk: Path
) -> None:
    options = small_run(place, filling_disk / "run")
    filler = filling_disk / "filler"
    told: list[Event] = []

    def fill(event: Event, /) -> None:
        if isinstance(event, EpochDone) and event.epoch == 1:
            filler.write_bytes(bytes(shutil.disk_usage(filling_disk).free - 2**20))

    with pytest.raises((OutOfSpace, OSError)) as caught:
        saving_often(make_plan(options, silent), options, fill)
    ours = as_ours(caught.value)
    assert ours is not None
    assert ours.exit_status == 5
    filler.unlink()
    saving_often(make_plan(options, silent), options, told.append)
    texts = [event.text for event in told if isinstance(event, Note | Warned)]
    assert any(text.startswith("continuing after epoch ") for text in texts), texts
    assert ends_of(filling_disk / "run") == sound


def test_a_disk_without_room_is_told_before_the_run(
    place: Path, small_disk: Path, capsys: Capsys
) -> None:
    with working_in(place):
        assert run([*TRAIN, "--out", str(small_disk / "run")]) == 5
    error = capsys.readouterr().err.splitlines()[-2]
    assert error.startswith("error: the run in ")
    assert not list(small_disk.rglob("*.safetensors"))
