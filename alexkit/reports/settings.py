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
    told = data_facts(data)
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


def run_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """What is told first of a run, as its ``run.json`` has it."""
    names = ("command", "state", "started", "ended", "error")
    return {name: record[name] for name in names if record.get(name)}


def asked(record: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given a value: no flag that is off, no list without an entry."""
    options = record["options"].items()
    return {k: v for k, v in options if not (v is None or v is False or v == [])}


def data_facts(data: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of the data but for the names of their classes."""
    return {k: v for k, v in data.items() if v is not None and not isinstance(v, list)}


def settings_blocks(record: Mapping[str, Any]) -> list[Block]:
    """What was asked, what was derived by which rule, versions, times; from ``run.json``."""
    words = record.get("command_line") or []
    head = run_facts(record)
    if words:
        head["command line"] = shlex.join(["alexkit", *map(str, words)])
    derived = [
        [name, str(told["value"]), str(told["rule"])]
        for name, told in record.get("derived", {}).items()
    ]
    blocks: list[Block] = [facts(head, "The run"), facts(asked(record), "Options")]
    if derived:
        header = ["what", "value", "by which rule"]
        blocks.append(Grid((header, derived), "What was derived"))
    return [*blocks, facts(record.get("versions", {}), "Versions")]
