"""One feature file by several processes: rank 0 has the file, each other a part beside it."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from alexkit.errors import FileMismatch, WorkerFailed
from alexkit.events import silent
from alexkit.features.extract import FeatureBatch
from alexkit.features.layout import Plan, Status
from alexkit.features.parts import (
    PartWriter,
    free_number,
    part_path,
    parts_beside,
    rows_of_rank,
    stretch_of_rank,
    take_in,
)
from alexkit.features.virtual_writer import VirtualWriter
from alexkit.features.writer import FeatureWriter, Rows, Values
from alexkit.images.source import ImageSource
from alexkit.recipes.extraction import Job
from alexkit.recipes.interrupts import Stop, stop_requests
from alexkit.recipes.ledger import Ledger
from alexkit.training.launch import Ranks

NO_FEATURES = "row holds NaN"
PLAN, PENDING, RESULT, DONE = "plan", "pending", "result", "done"
LEDGER_ENDING = ".csv"


WholeWriter = FeatureWriter | VirtualWriter


class Writer(Protocol):
    """Of a whole file or of a part."""

    def append(self, rows: Rows, values: dict[str, Values], /) -> object: ...

    def mark(self, row: int, status: Status, reason: str, /) -> None: ...


def keep(
    batch: FeatureBatch,
    writer: Writer,
    source: ImageSource,
    ledger: Ledger,
    action: str = NO_FEATURES,
) -> int:
    """Writes a batch, and what is wrong with its images; returns the number of its rows."""
    ledger.add_batch(source, batch, action)
    for problem in batch.problems:
        writer.mark(*problem)
    writer.append(batch.rows, dict(batch.values))
    return len(batch.rows) + len(batch.problems)


def collect(
    writer: WholeWriter, ledger: Ledger, overwrite: bool, between: Callable[[], None]
) -> None:
    """Takes in all parts that lie beside a file, or counts what is in them where they are to
    stay, with the images they had trouble with.

    Raises:
        AlexkitError: see :func:`alexkit.features.parts.each_part`.
    """
    for path in parts_beside(writer.path, LEDGER_ENDING + ".partial"):
        path.unlink()
    for path in parts_beside(writer.path, LEDGER_ENDING):
        ledger.take_in(path)
        path.unlink()
    if isinstance(writer, VirtualWriter):
        writer.look(discard=overwrite, between=between)
    else:
        take_in(writer, discard=overwrite, between=between)


def deal(ranks: Ranks, writer: WholeWriter, job: Job) -> Rows:
    """Of rank 0: tells the others what is to do, and returns its own share of it."""
    pending, virtual = writer.pending(), isinstance(writer, VirtualWriter)
    plan = {
        "path": str(writer.path.absolute()),
        "batch_size": job.batch_size,
        "virtual": virtual,
        "first": free_number(writer.path) if virtual else 0,
        "fingerprint": writer.provenance["fingerprint"],
    }
    if not ranks.alone:
        wanted = np.zeros(writer.size, bool)
        wanted[pending] = True
        ranks.tell(PENDING, b64encode(np.packbits(wanted).tobytes()).decode())
        ranks.tell(PLAN, json.dumps(plan))
    mine = _share(pending, plan, ranks)
    if isinstance(writer, VirtualWriter) and mine.size:
        writer.begin(_part(writer.path, plan, ranks), mine)
    return mine


def _share(pending: Rows, plan: Mapping[str, Any], ranks: Ranks) -> Rows:
    """What of ``pending`` this process extracts."""
    if plan["virtual"]:
        return stretch_of_rank(pending, ranks.rank, ranks.world)
    return rows_of_rank(pending, plan["batch_size"], ranks.rank, ranks.world)


def _part(path: Path, plan: Mapping[str, Any], ranks: Ranks) -> Path:
    """The part of this process: of a virtual file, numbers go on where parts lie already."""
    return part_path(path, plan["first"] + ranks.rank, plan["first"] + ranks.world)


def gather(
    ranks: Ranks,
    writer: WholeWriter,
    ledger: Ledger,
    stop: Callable[[], None],
    advance: Callable[[], None],
) -> None:
    """Of rank 0: waits for the parts of the others and takes them in, or counts them.

    Raises:
        WorkerFailed: one is dead or failed, or its part cannot be seen from here.
    """
    if ranks.alone and not isinstance(writer, VirtualWriter):
        return

    def meanwhile() -> None:
        stop()
        advance()

    for rank in range(1, ranks.world):
        ranks.hear(_ready(rank), meanwhile)
    collect(writer, ledger, False, stop)
    if writer.pending().size:
        raise WorkerFailed(
            f"{writer.pending().size} rows of other ranks are not in {writer.path.parent}",
            hint="all machines must see the folder of --out, on a file system they share",
        )


def help_out(job: Job, provenance: dict[str, Any], ranks: Ranks, strict: bool) -> Any:
    """Of every other rank: extracts its share into its part, and returns rank 0's result.

    Raises:
        WorkerFailed: rank 0 is dead or failed.
        FileMismatch: rank 0 has other images, weights or settings.
        Interrupted: by a signal, after the batch at hand was written.
    """
    with stop_requests() as stop:

        def waiting() -> None:
            stop.check(f"rank {ranks.rank} waited for rank 0")

        plan = json.loads(ranks.hear(PLAN, waiting))
        if plan["fingerprint"] != json.loads(json.dumps(provenance["fingerprint"])):
            raise FileMismatch(
                f"rank {ranks.rank} has other images, weights or settings than rank 0",
                hint="give every machine the same data and weights",
            )
        bits = np.frombuffer(b64decode(ranks.hear(PENDING, waiting)), np.uint8)
        pending = np.flatnonzero(np.unpackbits(bits, count=len(job.source)))
        mine = _share(pending, plan, ranks)
        if mine.size:
            part = _part(Path(plan["path"]), plan, ranks)
            _extract_part(job, provenance, ranks, part, mine, strict, stop)
        ranks.tell(_ready(ranks.rank), "")
        return json.loads(ranks.hear(RESULT, waiting))


def _extract_part(
    job: Job,
    provenance: dict[str, Any],
    ranks: Ranks,
    part: Path,
    rows: Rows,
    strict: bool,
    stop: Stop,
) -> None:
    source, stored = job.source, job.stored
    plan = Plan.of(source, stored.shapes, stored.dtype, provenance)
    with PartWriter(part, plan, rows) as writer:
        # Its rows are told by the part, but not what was repaired or converted.
        beside = part.with_name(part.name + LEDGER_ENDING)
        ledger = Ledger(beside, strict=strict, report=silent)
        for batch in job.features(writer.pending()):
            ranks.add(DONE, keep(batch, writer, source, ledger))
            stop.check(f"what rank {ranks.rank} has done is in {writer.partial}")
            ranks.check()


def _ready(rank: int) -> str:
    return f"part/{rank}"
