"""Images and a network into one feature file."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexkit.choices import Compress, Decode, FeatureDtype, Merge
from alexkit.errors import UsageError
from alexkit.events import Note, Reporter, Saved, Stage, Warned, silent
from alexkit.features.layout import Plan
from alexkit.features.parts import drop_parts, parts_beside
from alexkit.features.store import FeatureStore
from alexkit.features.virtual_writer import VirtualWriter
from alexkit.recipes import sift_fv
from alexkit.recipes.devices import devices_of_rank
from alexkit.recipes.drift import measure_drift
from alexkit.recipes.extraction import Job, check_float16
from alexkit.recipes.inputs import (
    FEATURES_FILE,
    FILE_SUFFIXES,
    choose_backbone,
    choose_data,
    data_record,
    open_data,
    tell_pack,
)
from alexkit.recipes.interrupts import stop_requests
from alexkit.recipes.layers import Stored, tell_forecast
from alexkit.recipes.ledger import LEDGER, Ledger, none_usable
from alexkit.recipes.meter import Meter
from alexkit.recipes.options import FeaturesOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.origin import provenance_of
from alexkit.recipes.pace import Pace
from alexkit.recipes.reporting import report_at_the_end
from alexkit.recipes.run_dir import Remembering, RunDir, now
from alexkit.recipes.sharing import (
    DONE,
    NO_FEATURES,
    RESULT,
    WholeWriter,
    collect,
    deal,
    gather,
    help_out,
    keep,
)
from alexkit.recipes.trial import features_tried
from alexkit.training.launch import Ranks
from alexkit.whole_file import partial_path

STAGE = "features"


def run(options: FeaturesOptions, report: Reporter) -> dict[str, Any]:
    """Extracts ``options.layer`` of every image into one file and returns what it holds.

    ``--out F.h5`` is that file; otherwise a run folder holds ``features.h5``, the record of
    the run and the ledger of bad images. The same command continues an interrupted file.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; nothing is created before the data, the
            weights, the layers and the device are known to be usable.
    """
    with Ranks.launched() as ranks:
        if sift_fv.asked(options):
            if not ranks.alone:
                raise UsageError(
                    "sift-fv is computed by one process", hint="start it without torchrun"
                )
            return sift_fv.run(options, report)
        if ranks.rank:
            job, provenance = _settle(options, silent, ranks)
            return dict(help_out(job, provenance, ranks, options.strict))
        result = _lead(options, Remembering(report), ranks)
        if not ranks.alone:
            ranks.tell(RESULT, json.dumps(result))
        return result


def _lead(options: FeaturesOptions, report: Remembering, ranks: Ranks) -> dict[str, Any]:
    """What rank 0 does; where it is alone, everything."""
    began = time.monotonic()
    job, provenance = _settle(options, report, ranks)
    source, stored = job.source, job.stored
    to_file = options.out is not None and options.out.suffix in FILE_SUFFIXES
    place = options.out if to_file else RunDir.place("features", options) / FEATURES_FILE
    assert place is not None
    virtual = _is_virtual(options, place, ranks, report)
    tell_forecast(place, len(source), stored, report, ranks.world, virtual=virtual)
    if stored.dtype is FeatureDtype.FLOAT16 and not partial_path(place).exists():
        check_float16(job)
    folder: RunDir | None = None
    with ExitStack() as stack:
        path, ledger_path = place, None
        if not to_file:
            folder = stack.enter_context(RunDir.open("features", options, report))
            folder.note("data", data_record(source))
            path, ledger_path = folder.path / FEATURES_FILE, folder.path / LEDGER
        writer = _writer(path, job, provenance, options, virtual)
        stack.enter_context(writer)
        ledger = Ledger(ledger_path, strict=options.strict, report=report)
        _fill(writer, job, report, ledger, ranks, options)
        if ledger.bad == len(source):
            writer.discard()
            raise none_usable(len(source), source.root)
        _finish(writer, job, report)
        if not virtual:
            drop_parts(path)  # of a virtual file that was here before
        result = {
            "file": str(path),
            "rows": len(source),
            "bad": ledger.bad,
            "repaired": ledger.repaired,
            "layers": {layer: list(shape) for layer, shape in stored.shapes.items()},
            "model": job.backbone.name,
            "weights": job.backbone.source,
            "seconds": time.monotonic() - began,
        }
        if virtual:
            result["parts"] = [str(part) for part in parts_beside(path, "")]
        report(Saved("features", str(path)))
        if folder is not None:
            folder.finish(result)
    if folder is not None:  # the file is closed by now
        report_at_the_end(folder.path, report, source)
    return result


def _is_virtual(options: FeaturesOptions, place: Path, ranks: Ranks, report: Reporter) -> bool:
    """Whether rows are to stay in parts. One process makes none, but goes on with those of an
    interrupted run."""
    if options.merge is Merge.COPY:
        return False
    if ranks.alone and not parts_beside(place) and not parts_beside(place, ""):
        report(Note("one process has nothing to merge: the file holds all rows itself"))
        return False
    return True


def _writer(
    path: Path,
    job: Job,
    provenance: dict[str, Any],
    options: FeaturesOptions,
    virtual: bool,
) -> WholeWriter:
    plan = Plan.of(job.source, job.stored.shapes, job.stored.dtype, provenance)
    if virtual:
        return VirtualWriter(path, plan, overwrite=options.overwrite)
    how = job.stored.compress
    return FeatureStore.create(path, plan, compress=how, overwrite=options.overwrite)


def _settle(
    options: FeaturesOptions, report: Reporter, ranks: Ranks
) -> tuple[Job, dict[str, Any]]:
    """All that decides the values, and the provenance that tells it; nothing is created."""
    if options.merge is Merge.VIRTUAL and options.compress is not Compress.NONE:
        raise UsageError(
            "--merge virtual leaves rows where they were written, and --compress writes them"
            " anew",
            hint="leave out one of the two",
        )
    data = choose_data(options.data, "alexkit features photos/", report)
    device, *further = devices_of_rank(
        options.device, ranks.local_rank, ranks.local_world, report
    )
    source = open_data(data, report)
    backbone = choose_backbone(options.model, options.weights, options.seed, report)
    stored = Stored.of(options, backbone)
    preprocess = settle_exif(backbone.preprocess, options.exif, source, report)
    backbone.preprocess = replace(preprocess, decode=options.decode.value)
    tell_pack(source, backbone.preprocess, report)
    job = Job.of(source, backbone, stored, device, options, report, ranks.local_world)
    job = job.on_also(further)
    provenance = provenance_of(job, data)
    if not ranks.alone:
        provenance["ranks"] = ranks.world
    if options.decode is Decode.FAST:
        net, layers = backbone.net, list(stored.shapes)
        drift = measure_drift(source, net, layers, backbone.preprocess, device, report)
        provenance["decode_drift"] = drift
    return job, provenance


def _fill(
    writer: WholeWriter,
    job: Job,
    report: Reporter,
    ledger: Ledger,
    ranks: Ranks,
    options: FeaturesOptions,
) -> None:
    """Extracts the rows the file still lacks, and writes each batch before the next.

    Raises:
        Interrupted: by a signal, after the batch at hand was written.
        WorkerFailed: another rank is dead or failed; what it has written is kept.
    """
    source = job.source
    stage = Stage(report, STAGE, writer.size, "images")
    parts = "" if ranks.alone else " and the parts beside it"

    def written() -> int:
        return writer.size - writer.pending().size

    with stop_requests() as stop:

        def check() -> None:
            done = max(stage.done, written())
            stop.check(f"{done} of {writer.size} images are in {writer.partial}{parts}")

        collect(writer, ledger, options.overwrite, check)
        ledger.add_rows(source, writer.problems().items(), NO_FEATURES)
        mine = deal(ranks, writer, job)
        stage.done = written()
        with stage:
            pace = Pace(writer.size, stage.done, report)

            def tell(live: Mapping[str, float] | None = None) -> None:
                done = written() + ranks.add(DONE)
                if done > stage.done:
                    stage.reach(done, live)
                    pace.tell(done)

            meter = Meter(source, job.threads, 1, report)
            settled = not ranks.alone or options.batch_size or options.workers
            for batch in (
                job.features(mine, meter=meter)
                if settled
                else features_tried(job, mine, meter, report)
            ):
                keep(batch, writer, source, ledger)
                tell({"waiting": meter.waiting} if job.device.type == "cuda" else {})
                check()
                ranks.check()
            gather(ranks, writer, ledger, check, tell)
            stage.done = writer.size
    ledger.close()


def _finish(writer: WholeWriter, job: Job, report: Reporter) -> None:
    """Gives the file its name, compressed if asked; says if images changed meanwhile.

    Raises:
        Interrupted: by a signal, while it was compressed.
    """
    ending: dict[str, Any] = {}
    if job.source.fingerprint() != writer.provenance["fingerprint"]["data"]:
        report(
            Warned(
                f"images in {job.source.root} changed while they were read: some rows may be of"
                " what was there before, some of what is there now"
            )
        )
        ending["changed_while_read"] = True
    if isinstance(writer, VirtualWriter) or job.stored.compress is Compress.NONE:
        writer.finish({**ending, "ended": now()})
        return
    total = len(job.source) * job.stored.row_bytes
    with (
        Stage(report, job.stored.compress.value, total, "bytes") as stage,
        stop_requests() as stop,
    ):

        def advance(done: int) -> None:
            stage.reach(done)
            stop.check(f"all images are in {writer.partial}, not yet compressed")

        writer.finish({**ending, "ended": now()}, advance)
        stage.done = total
