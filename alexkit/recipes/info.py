"""What a file is: a feature file, weights, a pack, or a run folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import DamagedFile, DataError, UsageError
from alexkit.events import Reporter, StageAdvanced, StageFinished, StageStarted, silent
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.images.pack import SUFFIX, is_pack
from alexkit.images.pack import Status as PackStatus
from alexkit.images.packed import PackSource, open_pack
from alexkit.models.specs import detect_models
from alexkit.models.weights import file_sha256, read_state
from alexkit.recipes.options import InfoOptions
from alexkit.recipes.run_dir import RECORD, read_record
from alexkit.reports.tables import size

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")

SHOWN_NOTES = 10

Facts = dict[str, dict[str, Any]]
"""Title of a block, then its names and values."""


def run(options: InfoOptions, report: Reporter = silent) -> Facts:
    """The facts about ``options.path``.

    Raises:
        UsageError: no path was given, or ``--verify`` with what has no checksums.
        DataError: there is nothing at that path.
        DamagedFile: it is none of the files alexkit knows, or a damaged one.
    """
    path = options.path
    if path is not None and path.is_file() and (path.suffix == SUFFIX or is_pack(path)):
        return about_pack(path, verify=options.verify, report=report)
    if options.verify:
        raise UsageError(
            f"{path} is no pack", hint="--verify checks packs, which have checksums"
        )
    if path is None:
        raise UsageError("no file was named", hint="type: alexkit info FILE")
    if path.is_dir():
        if not (path / RECORD).exists():
            raise DamagedFile(f"{path} is no run folder", hint="name a run folder or a file")
        return about_run(path)
    if not path.is_file():
        raise DataError(f"there is no {path}", hint="check the path")
    with path.open("rb") as file:
        start = file.read(len(HDF5_SIGNATURE))
    if start == HDF5_SIGNATURE:
        return about_features(path)
    if path.suffix in WEIGHT_SUFFIXES:
        return about_weights(path)
    raise DamagedFile(
        f"{path} is no file alexkit knows",
        hint=f"it reads feature files, packs, run folders and {', '.join(WEIGHT_SUFFIXES)}",
    )


def about_run(path: Path) -> Facts:
    """A run folder: what was asked, what was derived, what came of it."""
    record = read_record(path)
    names = ("command", "state", "started", "ended", "error")
    head = {name: record[name] for name in names if record.get(name)}
    data = record.get("data") or {}
    derived = {
        name: f"{told['value']} ({told['rule']})"
        for name, told in record.get("derived", {}).items()
    }
    asked = {k: v for k, v in record["options"].items() if v not in (None, False, [])}
    blocks = {
        str(path): head,
        "options": asked,
        "derived": derived,
        "data": {k: v for k, v in data.items() if not isinstance(v, list)},
        "result": _flat(record.get("result") or {}),
    }
    return {title: facts for title, facts in blocks.items() if facts}


def about_features(path: Path) -> Facts:
    """A feature file: rows, layers, statuses, classes, and where it came from."""
    with FeatureStore.open(path) as store:
        status = np.asarray(store.status)
        counts = {s.name.lower().replace("_", " "): int((status == s).sum()) for s in Status}
        head = {
            "size": size(path.stat().st_size),
            "complete": "yes" if store.complete else "no: the same command continues it",
            "rows": len(status),
            **{f"rows {name}": count for name, count in counts.items() if count},
            "classes": len(store.classes),
            "labelled rows": int((np.asarray(store.labels) >= 0).sum()),
        }
        layers = {
            name: " × ".join(map(str, shape)) + f" {store.dtype}"
            for name, shape in store.layers.items()
        }
        return {str(path): head, "layers": layers, "provenance": _flat(store.provenance)}


def about_pack(path: Path, *, verify: bool, report: Reporter) -> Facts:
    """A pack: rows, classes, pixels, and where it came from.

    Raises:
        DamagedFile: ``verify``, and something is not as it was written.
    """
    pack = open_pack(path, unfinished=True)
    status = np.asarray(pack.status)
    bad = int((status == PackStatus.UNREADABLE).sum())
    todo = int((status == PackStatus.TODO).sum())
    head = {
        "size": size(path.stat().st_size),
        "complete": "yes" if pack.complete else "no: the same command continues it",
        "images": len(pack),
        **({"images to do": todo} if todo else {}),
        **({"images unreadable": bad} if bad else {}),
        "images repaired or converted": len(pack.noted()) - bad,
        "classes": len(pack.classes),
        "labelled images": int((np.asarray(pack.labels) >= 0).sum()),
        "pixels": f"{pack.side} × {pack.side} × 3, uint8, RGB",
    }
    if pack.complete:
        head["fingerprint"] = pack.fingerprint()
    if verify:
        head["verified"] = _verified(pack, report)
    told = {pack.record(row).path: note for row, note in pack.noted().items()}
    shown = dict(list(told.items())[:SHOWN_NOTES])
    if len(told) > len(shown):
        shown["…"] = f"{len(told) - len(shown):,} more in the pack's rows/note"
    odd = {"unreadable, repaired or converted": shown} if shown else {}
    return {str(path): head, "provenance": _flat(pack.provenance), **odd}


def _verified(pack: PackSource, report: Reporter) -> str:
    if not pack.complete:
        raise DamagedFile(
            f"{pack.path} is not complete", hint="the command that began it continues it"
        )
    began, stage = time.monotonic(), "verify"
    report(StageStarted(stage, len(pack), "images"))
    wrong = []
    for what, done, right in pack.verify():
        if not right:
            wrong.append(what)
        report(StageAdvanced(stage, done))
    report(StageFinished(stage, len(pack), time.monotonic() - began))
    if wrong:
        some = ", ".join(wrong[:3]) + (", …" if len(wrong) > 3 else "")
        raise DamagedFile(
            f"{pack.path} is not as it was written: {some}", hint="make the pack again"
        )
    return "every block is as it was written"


def about_weights(path: Path) -> Facts:
    """A weight file: which network it fits, its tensors and its metadata."""
    state, metadata = read_state(path)
    head = {
        "size": size(path.stat().st_size),
        "sha256": file_sha256(path),
        "network": metadata.get("model") or " or ".join(detect_models(state)) or "unknown",
        "tensors": len(state),
        "parameters": f"{sum(t.numel() for t in state.values()):,}",
    }
    tensors = {name: f"{tuple(t.shape)} {str(t.dtype)[6:]}" for name, t in state.items()}
    return {str(path): head, "metadata": _flat(metadata), "tensors": tensors}


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested records as dotted names, long lists cut to their length."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and len(value) > 6:
            flat[prefix + name] = f"{len(value)} entries"
        else:
            flat[prefix + name] = value
    return flat
