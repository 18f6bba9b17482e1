"""The run folder: what was asked, what came of it, and whether it may be continued.

``run.json`` is replaced as a whole (temporary file, fsync, rename), so it is never half
written. A lock held for the life of the process tells a live run from a dead one: the
kernel drops it with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from alexkit import __version__
from alexkit.errors import AlexkitError, DamagedFile, Interrupted, OutputExists, UsageError
from alexkit.events import Chosen, Event, Note, Reporter
from alexkit.json_text import from_json
from alexkit.recipes.options import SharedOptions, to_record
from alexkit.whole_file import whole_file

RUNS = Path("runs")
RECORD = "run.json"
KINDS: dict[str, tuple[type, ...]] = {
    "command": (str,),
    "state": (str,),
    "options": (dict,),
    **dict.fromkeys(("result", "data", "derived"), (dict, type(None))),
    "writes": (list, type(None)),
}
"""What has to stand in it, or may."""
UNFINISHED = ("running", "interrupted", "failed")

# Options that say where or how fast, not what: a continued run may change them.
FREE_TO_CHANGE = frozenset({"out", "overwrite", "workers", "max_time", "parallel"})


def now() -> str:
    """The present moment, ISO 8601 in UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def versions() -> dict[str, str]:
    """Versions of what computes the numbers."""
    names = ("torch", "torchvision", "numpy", "pillow", "simplejpeg", "scikit-learn", "h5py")
    found = {"alexkit": __version__, "python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # installed in a way that left no metadata
            found[name] = "unknown"
    return found


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a JSON file so that a reader sees the old one or the new one, whole."""
    with whole_file(path) as file:
        file.write(json.dumps(record, indent=2, allow_nan=False).encode() + b"\n")


def read_record(folder: Path) -> dict[str, Any]:
    """The ``run.json`` of a run folder.

    Raises:
        DamagedFile: it is missing, or not what alexkit writes.
    """
    path = folder / RECORD
    try:
        record = from_json(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("it is no object")
        for name, kinds in KINDS.items():
            if not isinstance(record.get(name), kinds):
                raise ValueError(f"{name} is missing or odd")
        for told in (record.get("derived") or {}).values():
            if not (isinstance(told, dict) and {"value", "rule"} <= told.keys()):
                raise ValueError("derived is odd")
    except (OSError, ValueError) as problem:
        raise DamagedFile(
            f"{path} cannot be read as a run's record: {problem}",
            hint="name a run folder that alexkit wrote",
        ) from problem
    return record


def result_in(folder: Path) -> dict[str, Any] | None:
    """The result of the run in a folder; None where there is none, or it is not done."""
    if not (folder / RECORD).is_file():
        return None
    record = read_record(folder)
    result: dict[str, Any] | None = record["result"] if record["state"] == "done" else None
    return result


def runs_here(commands: tuple[str, ...], *, state: str | None = None) -> list[Path]:
    """Run folders of ``commands`` in ``runs/``, newest start first; damaged ones left out."""
    found = []
    for path in RUNS.glob(f"*/{RECORD}"):
        try:
            record = read_record(path.parent)
        except DamagedFile:
            continue
        if record["command"] in commands and state in (None, record["state"]):
            found.append((str(record.get("started", "")), path.parent))
    return [folder for _, folder in sorted(found, reverse=True)]


class Remembering:
    """A reporter that passes events on and keeps every derived value with its rule."""

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self.derived: dict[str, dict[str, str]] = {}

    def __call__(self, event: Event, /) -> None:
        if isinstance(event, Chosen):
            self.derived[event.name] = {"value": event.value, "rule": event.rule}
        self._report(event)


@dataclass(frozen=True)
class Elsewhere:
    """The run folder as processes know it that do not write it."""

    path: Path
    resumed: bool


class RunDir:
    """One run's folder, locked while this object lives; use it as a context manager.

    Leaving the block normally without :meth:`finish` or by an exception marks the run
    interrupted or failed; either way the same command continues it.
    """

    def __init__(
        self,
        path: Path,
        record: dict[str, Any],
        lock: IO[str],
        resumed: bool,
        derived: Mapping[str, Any],
    ) -> None:
        self.path = path
        self.resumed = resumed
        self._derived = derived
        self._record = record
        self._lock = lock
        self._before = float(record.get("spent", 0.0))
        self._began = time.monotonic()

    @classmethod
    def open(cls, command: str, options: SharedOptions, report: Remembering) -> RunDir:
        """Takes ``--out``, or continues the newest unfinished run of the same options, or
        begins ``runs/<command>-NNN``.

        Raises:
            OutputExists: the place holds a finished run, or something that is no run.
            UsageError: it holds an unfinished run of other options, or a live one.
        """
        wanted = to_record(options)
        path = cls.place(command, options)
        resumed = False
        if path.is_file():
            raise OutputExists(f"{path} is a file", hint="choose another --out")
        if path.exists() and any(path.iterdir()):
            resumed = _may_continue(path, command, wanted, options.overwrite)
        (path / "state").mkdir(parents=True, exist_ok=True)
        lock = _lock(path)
        if path.exists() and not resumed:
            _clear(path)
        record = read_record(path) if resumed else {"started": now()}
        record.pop("error", None)  # of the part before
        record |= {
            "format": "alexkit/run",
            "command": command,
            "command_line": sys.argv[1:],
            "options": wanted,
            "versions": versions(),
            "state": "running",
            "result": None,
        }
        report(Note(f"continuing {path}") if resumed else Note(f"run folder: {path}"))
        run = cls(path, record, lock, resumed, report.derived)
        try:
            run._write()
        except OSError:
            lock.close()
            if not resumed:
                _take_back(path)
            raise
        return run

    @staticmethod
    def place(command: str, options: SharedOptions) -> Path:
        """The folder that :meth:`open` takes, made or not."""
        twin = _unfinished_twin(command, to_record(options))
        return options.out or twin or _next_folder(command)

    @staticmethod
    def written(command: str, options: SharedOptions) -> list[str]:
        """What :meth:`writes` was told by the unfinished run that :meth:`open` continues."""
        path = RunDir.place(command, options)
        if not (path / RECORD).is_file():
            return []
        record = read_record(path)
        goes_on = _is_unfinished(record, command, to_record(options))
        return list(record.get("writes") or []) if goes_on else []

    def writes(self, path: Path) -> None:
        """To be told just before a file outside the folder is written, so that the run may
        write it again when it is continued."""
        before = self._record.get("writes") or []
        self.note("writes", sorted({*before, str(path.absolute())}))

    @property
    def spent(self) -> float:
        """Seconds in this run, its earlier parts among them as far as they were recorded."""
        return self._before + time.monotonic() - self._began

    def time(self, name: str) -> float:
        """Seconds of that name in ``run.json``, 0 where none was added."""
        return float(self._record.get(name, 0.0))

    def add(self, name: str, seconds: float) -> None:
        """Adds to the seconds of that name in ``run.json``."""
        self.note(name, self.time(name) + seconds)

    def note(self, name: str, value: Any) -> None:
        """Stores one more fact in ``run.json``."""
        self._record[name] = value
        self._write()

    def finish(self, result: Mapping[str, Any]) -> None:
        """Marks the run done, with its result."""
        self._record |= {"state": "done", "ended": now(), "result": dict(result)}
        self._write()

    def _write(self) -> None:
        self._record |= {"derived": dict(self._derived), "spent": self.spent}
        write_json(self.path / RECORD, self._record)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if self._record["state"] == "running":
            stopped = isinstance(error, Interrupted | KeyboardInterrupt)
            self._record |= {"state": "interrupted" if stopped else "failed", "ended": now()}
            if error is not None:
                told = error.message if isinstance(error, AlexkitError) else repr(error)
                self._record["error"] = told
            try:
                self._write()
            except OSError:
                if error is None:
                    raise
                # The first error is the one to tell; a full disk must not hide it.
        self._lock.close()


def _next_folder(command: str) -> Path:
    numbers = (path.name.removeprefix(f"{command}-") for path in RUNS.glob(f"{command}-*"))
    taken = [int(number) for number in numbers if number.isdecimal()]
    return RUNS / f"{command}-{max(taken, default=0) + 1:03d}"


def _unfinished_twin(command: str, wanted: Mapping[str, Any]) -> Path | None:
    """The newest run of ``command``, if it is unfinished, dead, and was asked the same."""
    for folder in runs_here((command,))[:1]:
        if _is_unfinished(read_record(folder), command, wanted) and not _is_live(folder):
            return folder
    return None


def _is_unfinished(record: Mapping[str, Any], command: str, wanted: Mapping[str, Any]) -> bool:
    """Whether it is of a run that was asked the same and is to be continued."""
    own = record["command"] == command and record["state"] in UNFINISHED
    return own and not _differences(record["options"], wanted)


def _differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    names = sorted((before.keys() | wanted.keys()) - FREE_TO_CHANGE)
    return [
        f"{name} {before.get(name)!r} -> {wanted.get(name)!r}"
        for name in names
        if before.get(name) != wanted.get(name)
    ]


def _may_continue(path: Path, command: str, wanted: Mapping[str, Any], overwrite: bool) -> bool:
    """True to continue the run in ``path``, False to replace it."""
    if not (path / RECORD).exists():
        if set(os.listdir(path)) <= {"state", f"{RECORD}.partial"}:
            return False  # killed between making the folder and writing its record
        raise OutputExists(
            f"{path} holds something that is no run of alexkit", hint="choose another --out"
        )
    record = read_record(path)
    if record["state"] == "done":
        if overwrite:
            return False
        raise OutputExists(
            f"{path} holds a finished {record['command']} run",
            hint="choose another --out, or replace it with --overwrite",
        )
    different = _differences(record["options"], wanted)
    if record["command"] != command:
        different.insert(0, f"command {record['command']} -> {command}")
    if different and overwrite:
        return False
    if different:
        raise UsageError(
            f"{path} holds an unfinished run with other options: {'; '.join(different)}",
            hint="repeat its options, choose another --out, or replace it with --overwrite",
        )
    return True


def _is_live(folder: Path) -> bool:
    try:
        _lock(folder).close()
    except UsageError:
        return True
    except OSError:
        return False
    return False


def _lock(path: Path) -> IO[str]:
    lock = (path / "state" / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        lock.close()
        raise UsageError(
            f"another process is writing {path}", hint="wait for it, or choose another --out"
        ) from problem
    return lock


def _take_back(path: Path) -> None:
    """Removes a folder whose first record could not be written."""
    with suppress(OSError):  # what went wrong is told already
        (path / "state" / "lock").unlink()
        (path / "state").rmdir()
        path.rmdir()


def _clear(path: Path) -> None:
    """Empties a run folder but for its lock."""
    for entry in path.iterdir():
        if entry.name == "state":
            for piece in entry.iterdir():
                if piece.name != "lock":
                    piece.unlink()
        elif entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
