"""Checkpoints: round trip, then damage, full disks and kills."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch

from alexkit.errors import DamagedFile, OutOfSpace
from alexkit.training.checkpoint import Checkpoint, CheckpointFolder, SaveRule
from tests.conftest import Clock


def numbered(step: int, size: int = 1000) -> Checkpoint:
    """A checkpoint that says in every part which step it is of."""
    tensors = {"weights": {"w": torch.full((size,), float(step))}, "optimizer": {}}
    return Checkpoint(step, tensors, {"step": step})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def pair(step: int) -> list[str]:
    return [f"step-{step:08d}.json", f"step-{step:08d}.safetensors"]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with the checkpoints of steps 10 and 20."""
    folder = CheckpointFolder(tmp_path)
    folder.save(numbered(10))
    folder.save(numbered(20))
    return tmp_path


def latest_step(path: Path) -> int:
    found = CheckpointFolder(path).latest()
    assert found is not None
    step = found.checkpoint.step
    assert found.checkpoint.scalars == {"step": step}
    assert found.checkpoint.tensors["weights"]["w"].unique().tolist() == [step]
    return step


def test_everything_comes_back_bit_for_bit(tmp_path: Path) -> None:
    weights = {
        "conv1.weight": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "odd": torch.tensor([float("nan"), -0.0, 1e-45, float("inf")]),
        "half": torch.randn(3).bfloat16(),
        "small": torch.randn(3).half(),
        "wide": torch.randn(3, dtype=torch.float64),
        "bytes": torch.arange(3, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "bn.num_batches_tracked": torch.tensor(2**40),
        "strided": torch.arange(12.0).view(3, 4).t()[1:],
        "nothing": torch.empty(0, 7),
    }
    scalars = {"lr": 0.1 + 0.2, "plateau": {"best": None}, "name": "α", "list": [1, 2]}
    groups = {"weights": weights, "optimizer": {}, "ema": {"a/b": torch.ones(2)}}
    saved = Checkpoint(7, groups, scalars)
    seconds = CheckpointFolder(tmp_path / "new" / "state").save(saved)
    found = CheckpointFolder(tmp_path / "new" / "state").latest()
    assert found is not None
    assert found.skipped == ()
    assert (found.checkpoint.step, found.checkpoint.scalars) == (7, scalars)
    back = found.checkpoint.tensors
    assert list(back) == ["weights", "optimizer", "ema"]
    assert back["optimizer"] == {}
    assert back["ema"].keys() == {"a/b"}
    assert back["weights"].keys() == weights.keys()
    for name, tensor in weights.items():
        its = back["weights"][name]
        assert (its.dtype, its.shape) == (tensor.dtype, tensor.shape)
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (its, tensor)]
        assert torch.equal(*bits), name
    assert seconds > 0


def test_the_file_is_what_the_safetensors_library_writes(tmp_path: Path) -> None:
    tensors = {
        "b": torch.randn(3, 5),
        "a": torch.randn(2),
        "0": torch.ones(3, dtype=torch.uint8),
    }
    CheckpointFolder(tmp_path).save(Checkpoint(1, {"weights": tensors}, {}))
    flat = {f"weights/{name}": tensor for name, tensor in tensors.items()}
    (file,) = tmp_path.glob("*.safetensors")
    assert file.read_bytes() == safetensors.torch.save(flat)


def test_the_last_two_are_kept_and_foreign_files_too(tmp_path: Path) -> None:
    others = ["lock", "step-notes.json", "step-00000001.txt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    folder = CheckpointFolder(tmp_path)
    assert folder.latest() is None
    for step in (1, 5, 30):
        folder.save(numbered(step))
        assert latest_step(tmp_path) == step
    assert names(tmp_path) == sorted([*others, *pair(5), *pair(30)])


def test_a_step_saved_again_does_not_cost_the_one_before(saved: Path) -> None:
    folder = CheckpointFolder(saved)
    assert folder.latest() is not None
    for step in (20, 30, 30):
        folder.save(numbered(step))
        assert len(names(saved)) == 4
    assert names(saved) == sorted([*pair(20), *pair(30)])


def test_a_folder_that_is_not_there_has_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "state").latest() is None


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-50] ^= 1
    path.write_bytes(data)


def edit_the_step(path: Path) -> None:
    text = path.read_text()
    assert '"step": 20' in text
    path.write_text(text.replace('"step": 20', '"step": 21'))


def not_ours(path: Path) -> None:
    path.write_text('["step", 20]')


def from_the_future(path: Path) -> None:
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"format_version": 2}))


DAMAGE = [
    ("safetensors", truncate, "has 2040 of its 4080 bytes"),
    ("safetensors", flip_a_bit, "was changed: its checksum differs"),
    ("safetensors", Path.unlink, "cannot be read"),
    ("json", truncate, "cannot be read"),
    ("json", edit_the_step, "was changed: its checksum differs"),
    ("json", not_ours, "is no checkpoint of alexkit"),
    ("json", from_the_future, "has format version 2, not 1"),
]


@pytest.mark.parametrize(
    ("suffix", "damage", "words"), DAMAGE, ids=[f"{d[1].__name__} {d[0]}" for d in DAMAGE]
)
def test_a_damaged_one_is_passed_over_and_named_and_all_damaged_is_an_error(
    saved: Path, suffix: str, damage: Callable[[Path], None], words: str
) -> None:
    path = saved / f"step-00000020.{suffix}"
    damage(path)
    found = CheckpointFolder(saved).latest()
    assert found is not None
    assert found.checkpoint.step == 10
    (sentence,) = found.skipped
    assert sentence.startswith(path.name)
    assert words in sentence
    truncate(saved / "step-00000010.safetensors")
    with pytest.raises(DamagedFile, match=words) as caught:
        CheckpointFolder(saved).latest()
    assert "step-00000010.safetensors" in caught.value.message
    assert caught.value.exit_status == 4


@pytest.mark.parametrize("then", [15, 20, 30])
def test_the_good_one_outlives_the_damaged_one(saved: Path, then: int) -> None:
    flip_a_bit(saved / "step-00000020.safetensors")
    folder = CheckpointFolder(saved)
    folder.latest()
    folder.save(numbered(then))
    assert names(saved) == sorted(pair(10) + pair(then))
    assert latest_step(saved) == then


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """No file may grow past 50 kB, as if the disk were full there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files_only")
@pytest.mark.parametrize("what", ["tensors", "scalars"])
def test_a_disk_that_fills_up_leaves_what_was_there(saved: Path, what: str) -> None:
    (saved / "step-00000025.safetensors.partial").write_bytes(b"of a save that was killed")
    tensors = {"weights": {"w": torch.zeros(100_000 if what == "tensors" else 1)}}
    scalars = {"history": [0.0] * (20_000 if what == "scalars" else 1)}
    folder = CheckpointFolder(saved)
    folder.latest()
    with pytest.raises(OutOfSpace, match="step 30") as caught:
        folder.save(Checkpoint(30, tensors, scalars))
    assert caught.value.exit_status == 5
    assert names(saved) == pair(10) + pair(20)
    assert latest_step(saved) == 20
    folder.save(numbered(40))
    assert names(saved) == pair(20) + pair(40)


def test_room_is_checked_before_the_first_byte(saved: Path) -> None:
    huge = torch.zeros(1).expand(10**15)  # 4 PB that nobody has, and no memory
    with pytest.raises(OutOfSpace, match="4000000000 MB"):
        CheckpointFolder(saved).save(Checkpoint(30, {"weights": {"w": huge}}, {}))
    assert names(saved) == pair(10) + pair(20)


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(OutOfSpace, match="state"):
        CheckpointFolder(tmp_path / "state").save(numbered(1))
    assert (tmp_path / "state").read_text() == "a file"


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(saved: Path) -> None:
    (saved / "step-00000030.safetensors").write_bytes(b"whole, but its JSON never came")
    (saved / "step-00000031.safetensors.partial").write_bytes(b"half")
    assert latest_step(saved) == 20
    folder = CheckpointFolder(saved)
    folder.latest()
    folder.save(numbered(40))
    assert names(saved) == pair(20) + pair(40)


KILLS = """
import os, random, signal, sys, time
from pathlib import Path
import torch
from alexkit.training.checkpoint import Checkpoint, CheckpointFolder

torch.set_num_threads(1)
path, rng, known = Path(sys.argv[1]), random.Random(0), 0
halfway = 0
for _ in range(int(sys.argv[2])):
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        folder = CheckpointFolder(path)
        folder.latest()
        for step in range(known + 1, 10**6):
            w = torch.full((rng.randrange(1, 10**6),), float(step))
            folder.save(Checkpoint(step, {"weights": {"w": w}}, {"step": step}))
            os.write(tell, step.to_bytes(4, "little"))
    os.close(tell)
    first = os.read(told, 4)
    time.sleep(rng.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with open(told, "rb") as pipe:
        known = int.from_bytes((first + pipe.read())[-4:], "little")
    found = CheckpointFolder(path).latest()
    step = found.checkpoint.step if found else 0
    assert step in (known, known + 1), (step, known)
    assert found is None or found.skipped == ()
    assert found is None or found.checkpoint.tensors["weights"]["w"].unique().tolist() == [step]
    assert len(list(path.iterdir())) <= 8, list(path.iterdir())
    halfway += any(file.suffix == ".partial" for file in path.iterdir())
    known = step
print(known, halfway)
"""


def test_a_kill_at_any_moment_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLS, str(tmp_path), "30"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    saves, halfway = map(int, done.stdout.split())
    assert saves >= 30
    assert halfway > 3, "the kills came between the saves"


def test_the_rule_waits_for_both_its_conditions() -> None:
    clock = Clock()
    rule = SaveRule(least_seconds=60, cost_ratio=20, clock=clock)
    assert not rule.due()
    clock.now += 60
    assert rule.due()
    rule.saved(seconds=1)  # 20 x 1 s is less than a minute
    clock.now += 59.9
    assert not rule.due()
    clock.now += 0.1
    assert rule.due()
    rule.saved(seconds=10)  # a slow disk: 200 s
    clock.now += 199.9
    assert not rule.due()
    clock.now += 0.1
    assert rule.due()


@pytest.mark.parametrize("cost", [0.01, 2.0, 30.0, 600.0])
def test_saving_stays_under_five_percent(cost: float) -> None:
    clock = Clock()
    rule = SaveRule(clock=clock)
    began, spent = clock.now, 0.0
    while clock.now - began < 20 * (60 + 21 * cost):
        clock.now += 0.7  # a step
        if rule.due():
            clock.now += cost
            spent += cost
            rule.saved(cost)
    assert 0 < spent < 0.05 * (clock.now - began)
