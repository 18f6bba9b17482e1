"""What a file is: a feature file, weights, a pack, or a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alexkit.errors import DamagedFile, DataError, UsageError
from alexkit.events import Reporter, Stage, silent
from alexkit.features.store import FeatureStore
from alexkit.images.pack import SUFFIX, is_pack
from alexkit.images.pack import Status as PackStatus
from alexkit.images.packed import PackSource, open_pack
from alexkit.models.specs import detect_models
from alexkit.models.weights import file_sha256, read_state
from alexkit.recipes.inputs import FILE_SUFFIXES
from alexkit.recipes.options import InfoOptions
from alexkit.recipes.out_file import RESULT, check_out, write_result
from alexkit.recipes.run_dir import RECORD, read_record
from alexkit.recipes.verify import verify
from alexkit.reports.features import ROW_COLUMNS, feature_record, row_records
from alexkit.reports.settings import asked, data_facts, run_facts
from alexkit.reports.tables import size
from alexkit.whole_file import partial_path

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt")

SHOWN_NOTES = 10

Facts = dict[str, dict[str, Any]]
"""Title of a block, then its names and values."""


def run(options: InfoOptions, report: Reporter = silent) -> dict[str, Any]:
    """The facts about ``options.path``: blocks of names and values, or a feature file's record.
    ``options.out`` takes them as JSON, or with ``--rows`` the rows as CSV.

    Raises:
        UsageError: no path was given, or ``--verify`` or ``--rows`` with what has none.
        DataError: there is nothing at that path, or it cannot be read.
        DamagedFile: it is none of the files alexkit knows, or a damaged one.
        AlexkitError: with ``--verify``, see :func:`alexkit.recipes.verify.verify`.
    """
    path = options.path
    if path is None:
        raise UsageError("no file was named", hint="type: alexkit info FILE")
    if not options.verify and (options.data or options.weights):
        raise UsageError("--data and --weights are for --verify", hint="add --verify")
    if options.out is not None:
        check_out(options.out, options.overwrite, path, RESULT if options.rows else RESULT[1:])
    result = _about(path, options, report)
    if options.out is not None:
        rows = [[str(cell) for cell in row.values()] for row in result.get("table", ())]
        table = (list(ROW_COLUMNS), rows) if options.rows else None
        write_result(options.out, result, table, report)
    return result


def _about(path: Path, options: InfoOptions, report: Reporter) -> dict[str, Any]:
    start = _start(path)
    pack = start is not None and (path.suffix == SUFFIX or is_pack(path))
    if options.rows and pack:
        raise UsageError(f"{path} is a pack", hint="--rows tells the rows of a feature file")
    if pack:
        return about_pack(path, verify=options.verify, report=report)
    if start == HDF5_SIGNATURE or (path.suffix in FILE_SUFFIXES and not path.is_dir()):
        return about_features(options, path, report)
    if options.verify or options.rows:
        raise UsageError(
            f"{path} is no pack and no feature file",
            hint="--verify is for these, --rows for feature files",
        )
    if start is None:
        if not (path / RECORD).exists():
            raise DamagedFile(f"{path} is no run folder", hint="name a run folder or a file")
        return about_run(path)
    if path.suffix in WEIGHT_SUFFIXES:
        return about_weights(path)
    raise DamagedFile(
        f"{path} is no file alexkit knows",
        hint=f"it reads feature files, packs, run folders and {', '.join(WEIGHT_SUFFIXES)}",
    )


def _start(path: Path) -> bytes | None:
    """The first bytes of a file; None for a folder.

    Raises:
        DataError: nothing is there, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(len(HDF5_SIGNATURE))
    except IsADirectoryError:
        return None
    except FileNotFoundError:
        unfinished = partial_path(path)
        hint = f"{unfinished} is unfinished" if unfinished.exists() else "check the path"
        raise DataError(f"there is no {path}", hint=hint) from None
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", hint="name a file that you may read"
        ) from None


def about_run(path: Path) -> Facts:
    """A run folder: what was asked, what was derived, what came of it."""
    record = read_record(path)
    derived = {
        name: f"{told['value']} ({told['rule']})"
        for name, told in record.get("derived", {}).items()
    }
    blocks = {
        str(path): run_facts(record),
        "options": asked(record),
        "derived": derived,
        "data": data_facts(record.get("data") or {}),
        "result": _flat(record.get("result") or {}),
    }
    return {title: facts for title, facts in blocks.items() if facts}


def about_features(options: InfoOptions, path: Path, report: Reporter) -> dict[str, Any]:
    """A feature file: see :func:`alexkit.reports.features.feature_record`.

    With ``--rows`` it has ``table`` besides: every row; with ``--verify`` ``verified``: see
    :func:`alexkit.recipes.verify.verify`.
    """
    with FeatureStore.open(path) as store:
        record = {"kind": "features", **feature_record(store)}
        if options.verify:
            record["verified"] = verify(store, options, report)
        if options.rows:
            record["table"] = list(row_records(store))
        return record


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
        "holds": pack.holds,
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
            f"{pack.path} is unfinished", hint="the command that began it continues it"
        )
    wrong = []
    with Stage(report, "verify", len(pack), "images") as stage:
        for what, done, right in pack.verify():
            if not right:
                wrong.append(what)
            stage.reach(done)
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
