"""What a run needs to continue, in a folder that a kill or a full disk cannot spoil.

    step-00001200.safetensors   every tensor, named group/name, e.g. weights/conv1.weight
    step-00001200.json          step, scalars, and the size and SHA-256 of the tensors

Both are written under another name and brought to the disk first, then renamed, the JSON
last: a checkpoint is there once its JSON is. The two newest that are known to be good stay.
Their tensors are read by any safetensors library.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from alexkit.errors import DamagedFile, OutOfSpace
from alexkit.json_text import from_json
from alexkit.models.tensorfile import sync_folder, write_tensors
from alexkit.models.weights import file_sha256
from alexkit.whole_file import sync, whole_file

FORMAT = "alexkit/checkpoint"
FORMAT_VERSION = 1
FILE_NAME = re.compile(r"step-(\d{8,})\.(json|safetensors)(\.partial)?")
SPARE_BYTES = 1 << 20
"""Room for the header, the JSON and the file system's own needs."""


@dataclass(frozen=True)
class Checkpoint:
    """The state of a run between two steps.

    Attributes:
        step: the number of the step to do next.
        tensors: group -> name -> tensor, on any device; ``weights`` (canonical names) and
            ``optimizer`` (momentum buffers by parameter name), and others if wanted.
        scalars: JSON-safe and finite, e.g. epoch, schedule state, rates, best result.
    """

    step: int
    tensors: Mapping[str, Mapping[str, Tensor]]
    scalars: Mapping[str, Any]


@dataclass(frozen=True)
class Found:
    """The newest good checkpoint, and a sentence on each newer one that is damaged."""

    checkpoint: Checkpoint
    skipped: tuple[str, ...]


class CheckpointFolder:
    """The checkpoints of one run. Call :meth:`latest` once before the first :meth:`save`.

    Other files in the folder are left alone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._good: int | None = None
        self._before: int | None = None

    def latest(self) -> Found | None:
        """The newest checkpoint whose checksums hold, tensors on the CPU; None if the
        folder has none.

        Raises:
            DamagedFile: there are checkpoints, and all of them are damaged.
        """
        skipped: list[str] = []
        steps = sorted(self._committed(), reverse=True)
        for place, step in enumerate(steps):
            try:
                checkpoint = _read(self._file(step, "json"))
            except DamagedFile as damage:
                skipped.append(damage.message)
            else:
                self._good, self._before = step, next(iter(steps[place + 1 :]), None)
                return Found(checkpoint, tuple(skipped))
        if skipped:
            raise DamagedFile(
                f"no checkpoint can be read: {'; '.join(skipped)}",
                hint="begin the run anew with --overwrite",
            )
        return None

    def save(self, checkpoint: Checkpoint) -> float:
        """Writes a checkpoint, then removes all but it and the good one before it; returns
        the seconds it took.

        Memory: one tensor at a time where they are not contiguous on the CPU, else none.

        Raises:
            OutOfSpace: it cannot be written; what was saved before is as it was.
        """
        began = time.perf_counter()
        tensor_path = self._file(checkpoint.step, "safetensors")
        record_path = self._file(checkpoint.step, "json")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove(lambda step, name: name.endswith(".partial"))
            flat = _flat(checkpoint.tensors)
            _check_space(self.path, sum(t.numel() * t.element_size() for t in flat.values()))
            with whole_file(record_path) as told, whole_file(tensor_path) as file:
                nbytes, sha256 = write_tensors(file, flat)
                record = _record(checkpoint, tensor_path.name, nbytes, sha256)
                told.write(json.dumps(record, indent=2, allow_nan=False).encode())
                sync(told)  # before the tensors get their name
            sync_folder(self.path)
        except OSError as problem:
            raise OutOfSpace(
                f"the checkpoint of step {checkpoint.step} cannot be written to {self.path}: "
                f"{problem.strerror}",
                hint="free some space or mend the disk; the same command then continues",
            ) from problem
        # A step is saved twice where an epoch ends: before and after it is judged.
        if checkpoint.step != self._good:
            self._good, self._before = checkpoint.step, self._good
        kept = (self._good, self._before)
        self._remove(lambda step, name: step not in kept)
        return time.perf_counter() - began

    def _file(self, step: int, suffix: str) -> Path:
        return self.path / f"step-{step:08d}.{suffix}"

    def _ours(self) -> list[tuple[int, Path]]:
        matches = ((FILE_NAME.fullmatch(path.name), path) for path in self.path.glob("step-*"))
        return [(int(match[1]), path) for match, path in matches if match]

    def _committed(self) -> set[int]:
        return {step for step, path in self._ours() if path.suffix == ".json"}

    def _remove(self, doomed: Callable[[int, str], bool]) -> None:
        # The JSON first: what is left by a kill in between is no checkpoint.
        for step, path in sorted(self._ours()):
            if doomed(step, path.name):
                path.unlink(missing_ok=True)


@dataclass
class SaveRule:
    """When the next checkpoint is due: ``least_seconds`` after the last one, and not before
    ``cost_ratio`` times what that one cost has passed.

    A kill then loses a minute's work or so, and saving takes at most 1 / (1 + 20) = 4.8 % of
    the run, however slow the disk. The first is due ``least_seconds`` from the start.

    Attributes:
        clock: monotonic seconds.
    """

    least_seconds: float = 60.0
    cost_ratio: float = 20.0
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self._last = self.clock()
        self._pause = self.least_seconds

    def due(self) -> bool:
        return self.clock() - self._last >= self._pause

    def saved(self, seconds: float) -> None:
        """A save that took ``seconds`` is just done."""
        self._last = self.clock()
        self._pause = max(self.least_seconds, self.cost_ratio * seconds)


def _flat(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{group}/{name}": t for group, own in groups.items() for name, t in own.items()}


def _check_space(folder: Path, nbytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < nbytes + SPARE_BYTES:
        raise OutOfSpace(
            f"a checkpoint needs {nbytes / 1e6:.0f} MB in {folder}, and {free / 1e6:.0f} MB "
            "are free",
            hint="free some space; the same command then continues",
        )


def _record(checkpoint: Checkpoint, file: str, nbytes: int, sha256: str) -> dict[str, Any]:
    record = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "step": checkpoint.step,
        "groups": list(checkpoint.tensors),
        "tensors": {"file": file, "bytes": nbytes, "sha256": sha256},
        "scalars": dict(checkpoint.scalars),
    }
    return {**record, "sha256": _record_sha256(record)}


def _record_sha256(record: Mapping[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> Checkpoint:
    """Raises DamagedFile with a sentence that names the file and what is wrong with it."""
    record = _read_record(path)
    tensor_path = path.with_name(record["tensors"]["file"])
    try:
        nbytes = tensor_path.stat().st_size
        wanted = record["tensors"]["bytes"]
        if nbytes != wanted:
            raise _damaged(tensor_path, f"has {nbytes} of its {wanted} bytes")
        if file_sha256(tensor_path) != record["tensors"]["sha256"]:
            raise _damaged(tensor_path, "was changed: its checksum differs")
        flat = load_file(tensor_path)
    except (OSError, SafetensorError) as problem:
        raise _damaged(tensor_path, f"cannot be read: {problem}") from problem
    tensors: dict[str, dict[str, Tensor]] = {group: {} for group in record["groups"]}
    for name, tensor in flat.items():
        group, _, own = name.partition("/")
        tensors[group][own] = tensor
    return Checkpoint(record["step"], tensors, record["scalars"])


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise _damaged(path, f"cannot be read: {problem}") from problem
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise _damaged(path, "is no checkpoint of alexkit")
    version = record.get("format_version")
    if version != FORMAT_VERSION:
        raise _damaged(path, f"has format version {version}, not {FORMAT_VERSION}")
    if record.get("sha256") != _record_sha256(record):
        raise _damaged(path, "was changed: its checksum differs")
    return record


def _damaged(path: Path, what: str) -> DamagedFile:
    return DamagedFile(f"{path.name} {what}", hint="use the checkpoint before it")
