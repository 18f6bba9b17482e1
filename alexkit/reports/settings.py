"""What every report tells of its run: the data, the ledger, what was asked and derived."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from alexkit.reports.page import Block, Grid, Words, facts

SHOWN_LEDGER = 200
"""Lines of the ledger on a page; the file has them all."""

Ledger = Sequence[Sequence[str]]
"""Path, reason and action of each bad, repaired or converted image."""


def data_blocks(
    data: Mapping[str, Any], ledger: Ledger, more: Mapping[str, Any]
) -> list[Block]:
    """The images of a run, and those that could not be used as they were.

    Args:
        data: as ``run.json`` has it.
        more: further facts of it.
    """
    told = {k: v for k, v in data.items() if not isinstance(v, list) and v is not None}
    if isinstance(data.get("classes"), list):
        told["classes"] = len(data["classes"])
    blocks: list[Block] = [facts(told | dict(more), "The images")] if told or more else []
    if not ledger:
        return [*blocks, Words("No image was bad, repaired or converted.")]
    shown = [list(line) for line in ledger[:SHOWN_LEDGER]]
    if len(ledger) > len(shown):
        blocks.append(
            Words(f"{len(ledger):,} images are in bad_images.csv; the first are shown.")
        )
    caption = "Images that were left out, repaired or converted"
    return [*blocks, Grid((["image", "what", "what was done"], shown), caption)]


def settings_blocks(record: Mapping[str, Any]) -> list[Block]:
    """What was asked, what was derived by which rule, versions, times; from ``run.json``."""
    words = record.get("command_line") or []
    names = ("command", "state", "started", "ended", "error")
    head = {name: record[name] for name in names if record.get(name)}
    if words:
        head["command line"] = shlex.join(["alexkit", *map(str, words)])
    asked = {k: v for k, v in record["options"].items() if v not in (None, False, [])}
    derived = [
        [name, str(told["value"]), str(told["rule"])]
        for name, told in record.get("derived", {}).items()
    ]
    blocks: list[Block] = [facts(head, "The run"), facts(asked, "Options")]
    if derived:
        header = ["what", "value", "by which rule"]
        blocks.append(Grid((header, derived), "What was derived"))
    return [*blocks, facts(record.get("versions", {}), "Versions")]
