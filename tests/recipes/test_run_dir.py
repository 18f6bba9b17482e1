"""Run folders: numbered, continued when interrupted, never overwritten unasked."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from alexkit.errors import DamagedFile, Interrupted, OutputExists, UsageError
from alexkit.events import Chosen, silent
from alexkit.recipes.options import TrainOptions
from alexkit.recipes.run_dir import Remembering, RunDir, read_record, runs_here

ASKED = TrainOptions(data=Path("photos"), epochs=3)


pytestmark = pytest.mark.usefixtures("here")


def opened(**changes: Any) -> RunDir:
    return RunDir.open("train", dataclasses.replace(ASKED, **changes), Remembering(silent))


def interrupted_run(**changes: Any) -> Path:
    run = opened(**changes)
    (run.path / "progress").write_text("kept")
    run.__exit__(Interrupted, Interrupted("stopped", hint="again"), None)
    return run.path


def test_runs_are_numbered_and_recorded() -> None:
    for number in (1, 2):
        report = Remembering(silent)
        report(Chosen("device", "cpu", "no GPU found"))
        with RunDir.open("train", ASKED, report) as run:
            run.finish({"top1": 0.5})
        assert run.path == Path(f"runs/train-{number:03d}")
    record = read_record(run.path)
    assert record["state"] == "done"
    assert record["result"] == {"top1": 0.5}
    assert record["options"]["epochs"] == 3
    assert record["derived"]["device"] == {"value": "cpu", "rule": "no GPU found"}
    assert runs_here(("train",), state="done") == [
        Path("runs/train-002"),
        Path("runs/train-001"),
    ]


def test_folders_that_are_no_number_are_not_counted() -> None:
    for name in ("train-007", "train-8²", "train-12-old", "train-", "finetune-900"):
        Path("runs", name).mkdir(parents=True)
    assert RunDir.place("train", ASKED) == Path("runs/train-008")


def test_the_same_command_continues_what_was_interrupted() -> None:
    path = interrupted_run()
    assert read_record(path)["state"] == "interrupted"
    with opened() as again:
        assert again.resumed
        assert again.path == path
        assert (path / "progress").read_text() == "kept"


def test_time_is_that_of_all_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    run = opened()
    run.add("frozen_part_seconds", 2.0)
    now += 5.0
    run.__exit__(Interrupted, Interrupted("stopped", hint="again"), None)
    assert read_record(run.path)["spent"] == 5.0
    now += 1000.0
    with opened() as again:
        again.add("frozen_part_seconds", 1.0)
        assert again.time("frozen_part_seconds") == 3.0
        assert again.time("other") == 0.0
        now += 0.5
        assert again.spent == 5.5
        again.finish({})
    with opened(out=run.path, overwrite=True) as fresh:
        assert fresh.spent == 0.0


def test_other_options_begin_another_run_by_default_and_are_refused_with_out() -> None:
    path = interrupted_run(out=Path("here"))
    with opened(epochs=5) as fresh:
        assert not fresh.resumed
    with pytest.raises(UsageError, match="epochs 3 -> 5"):
        opened(epochs=5, out=path)
    assert (path / "progress").exists()


def test_workers_may_change_when_continuing() -> None:
    path = interrupted_run()
    with opened(workers=7) as again:
        assert again.path == path


def test_a_finished_run_is_replaced_only_when_asked() -> None:
    here = Path("here")
    with opened(out=here) as run:
        (run.path / "weights").mkdir()
        (run.path / "weights" / "best").write_text("old")
        run.finish({})
    with pytest.raises(OutputExists, match="finished train run"):
        opened(out=here)
    assert (run.path / "weights" / "best").exists()
    with opened(out=here, overwrite=True) as new:
        assert not new.resumed
        assert not (new.path / "weights").exists()


def test_overwrite_still_continues_its_own_interrupted_run() -> None:
    options = {"out": Path("here"), "overwrite": True}
    interrupted_run(**options)
    with opened(**options) as again:
        assert again.resumed


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_touched(overwrite: bool) -> None:
    Path("here").mkdir()
    Path("here/thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists, match="no run of alexkit"):
        opened(out=Path("here"), overwrite=overwrite)
    assert Path("here/thesis.tex").read_text() == "years of work"
    assert sorted(p.name for p in Path("here").iterdir()) == ["thesis.tex"]


def test_a_disk_without_room_for_the_record_is_left_as_it_was(small_disk: Path) -> None:
    with (small_disk / "filler").open("wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, 2**21)
    with pytest.raises(OSError, match="No space left"):
        opened(out=small_disk / "run")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    (small_disk / "filler").unlink()
    with opened(out=small_disk / "run") as run:
        assert not run.resumed


def test_a_folder_whose_first_record_was_cut_by_a_kill_is_taken() -> None:
    (Path("here") / "state").mkdir(parents=True)
    Path("here/run.json.partial").write_text('{"comm')
    with opened(out=Path("here")) as run:
        assert not run.resumed
    assert not Path("here/run.json.partial").exists()


def test_a_damaged_record_is_named() -> None:
    path = interrupted_run(out=Path("here"))
    text = (path / "run.json").read_text()
    edited = ({"options": []}, {"state": None}, {"result": 3}, {"derived": {"device": "cpu"}})
    edits = [json.dumps(json.loads(text) | edit) for edit in edited]
    for damaged in (text[: len(text) // 2], "[]", "{}", "[" * 100_000, *edits):
        (path / "run.json").write_text(damaged)
        with pytest.raises(DamagedFile, match=r"run\.json"):
            opened(out=path)


def test_a_live_run_is_left_alone_and_a_killed_one_is_continued(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from alexkit.events import silent\n"
        "from alexkit.recipes.options import TrainOptions\n"
        "from alexkit.recipes.run_dir import Remembering, RunDir\n"
        "asked = TrainOptions(data=Path('photos'), epochs=3)\n"
        "run = RunDir.open('train', asked, Remembering(silent))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    child = subprocess.Popen([sys.executable, "-c", script], **pipes)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        with opened() as beside:
            assert beside.path == Path("runs/train-002")
            beside.finish({})
        with pytest.raises(UsageError, match="another process"):
            opened(out=Path("runs/train-001"))
    finally:
        child.kill()
        child.communicate()
    assert json.loads(Path("runs/train-001/run.json").read_text())["state"] == "running"
    with opened(out=Path("runs/train-001")) as again:
        assert again.resumed
