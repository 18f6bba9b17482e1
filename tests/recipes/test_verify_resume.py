"""`alexkit train --verify-resume`, with real processes and a real SIGKILL."""

from __future__ import annotations

from pathlib import Path

import pytest

from alexkit.cli.app import run
from alexkit.errors import FileMismatch
from alexkit.recipes import verify_resume
from alexkit.recipes.options import TrainOptions, from_values
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import working_in


def test_the_verdict_is_one_line(tmp_path: Path, capsys: Capsys) -> None:
    photos_in(tmp_path / "photos", {"train/ant": 9, "train/bee": 9, "val/ant": 2, "val/bee": 2})
    words = ["train", "photos", "--model", "alexnet-bn", "--head", "gap", "--verify-resume"]
    with working_in(tmp_path):
        assert run([*words, "--batch-size", "4", "--lr", "0.01"]) == 0
    verdict = capsys.readouterr().out.strip()
    assert verdict.startswith("resume is exact: alexnet-bn-gap, killed after step 4 of 6")
    assert "best.safetensors, last.safetensors, optimiser, metrics" in verdict
    assert "\n" not in verdict
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_ends_that_differ_are_told_apart(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos", {"train/ant": 6, "train/bee": 6})
    words = {"data": tmp_path / "photos", "model": "alexnet-bn", "head": "gap", "lr": 0.01}
    ends = []
    for seed in (0, 1):
        out = tmp_path / str(seed)
        chosen = {**words, "out": out, "seed": seed, "batch_size": 3, "epochs": 1}
        verify_resume.train_few(from_values(TrainOptions, chosen))
        ends.append(verify_resume.end_of(out))
    verify_resume.compare(ends[0], ends[0])
    with pytest.raises(FileMismatch, match=r"NOT exact.*safetensors, optimiser, metrics"):
        verify_resume.compare(*ends)
