"""``--out`` of a command that writes one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexkit.errors import UsageError
from alexkit.events import Reporter, Saved
from alexkit.reports.tables import Table, csv_bytes
from alexkit.whole_file import MAKE_ROOM, check_free, whole_file, writing

RESULT = (".csv", ".json")
"""How the file of a result ends."""


def check_out(
    out: Path,
    overwrite: bool,
    made_from: Path | None = None,
    endings: tuple[str, ...] = (),
) -> None:
    """Sees to it that ``out`` can be a new file, or take the place of an old one that is not
    what it is made from; where ``endings`` are given it has one of them.

    Raises:
        UsageError: it is a folder, or has another ending.
        OutputExists: it is there, and is not to be replaced.
    """
    if endings and out.suffix.lower() not in endings:
        raise UsageError(
            f"--out {out} is in no format known here", hint=f"end it in {' or '.join(endings)}"
        )
    own = made_from is not None and made_from.exists() and out.exists()
    check_free(out, overwrite and not (own and out.samefile(made_from or out)))


def write_result(
    out: Path, result: Mapping[str, Any], table: Table | None, report: Reporter
) -> None:
    """What a command returns as a file: a ``table`` of it as CSV, or all of it as JSON.

    Raises:
        OutOfSpace: it cannot be written.
    """
    as_csv = table is not None and out.suffix.lower() == ".csv"
    with writing(out, MAKE_ROOM):
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as file:
            if as_csv and table is not None:
                file.write(csv_bytes(*table))
            else:
                file.write(json.dumps(result, indent=2).encode() + b"\n")
    report(Saved("result", str(out)))
