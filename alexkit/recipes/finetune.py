"""A pretrained network fitted to one's own images."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.choices import Freeze
from alexkit.errors import UsageError
from alexkit.events import Event, Reporter, StageFinished, silent
from alexkit.models.heads import replace_head
from alexkit.models.torchvision_heads import replace_torchvision_head
from alexkit.models.torchvision_nets import TorchvisionBackbone
from alexkit.recipes.devices import (
    autocast_of,
    decode_threads,
    place,
    resolve_devices,
    use_deterministic,
)
from alexkit.recipes.division import SPLIT_FILE, check_learnt, divide, tell_counts, write_split
from alexkit.recipes.finetune_plan import make_plan, rate_of
from alexkit.recipes.finetune_words import settle_how
from alexkit.recipes.finetune_work import (
    Work,
    groups_in,
    importance_of,
    judge_head,
    put_head,
    solve_head,
    stored_for,
)
from alexkit.recipes.fitting import FitRun
from alexkit.recipes.folds import run_folds
from alexkit.recipes.inputs import (
    Holdout,
    choose_backbone,
    data_record,
    holdout,
    open_data,
    tell_pack,
)
from alexkit.recipes.ledger import LEDGER, Ledger
from alexkit.recipes.options import FinetuneOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.reporting import report_at_the_end
from alexkit.recipes.run_dir import Remembering, RunDir
from alexkit.recipes.stored import STAGE, StoredViews
from alexkit.recipes.unfreezing import unfreeze
from alexkit.training.launch import launched_world

HOLD_OUT = 0.2
"""Of each class, where the data has no split of its own. Ours: of 30 images 6 judge, and the
other 24 lose little of what there is to learn from."""
FROZEN = "frozen_part_seconds"
"""In ``run.json`` and its result: of ``seconds``, what running the frozen part took."""


def run(options: FinetuneOptions, report: Reporter) -> dict[str, Any]:
    """Fits a pretrained network to ``options.data``.

    Its last layer is replaced by one for the classes found. What stays frozen is run once,
    into a feature file that later runs find again. With ``freeze`` auto the new layer is a
    convex fit, then layers below it learn too if that helps on a part of the training images;
    the held-out images judge and choose nothing.

    Returns the held-out accuracy and where the run is.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; no run folder is made before the data, the
            weights and the devices are known to be usable.
    """
    if options.data is None:
        raise UsageError("no data was named", hint="type: alexkit finetune mydata/")
    if launched_world() > 1:
        raise UsageError(
            f"finetune is one process, and the launcher started {launched_world()}",
            hint="type alexkit finetune without torchrun; train and features share their work",
        )
    remembering = Remembering(report)
    work = _settle(options, remembering)
    with RunDir.open("finetune", options, remembering) as folder:
        # The root of a list is its folder; what was named is what opens it again.
        named = {"path": os.path.abspath(options.data)}
        folder.note("data", data_record(work.source) | named)
        remembering = Remembering(_timing(folder, remembering))
        ledger = Ledger(folder.path / LEDGER, strict=options.strict, report=remembering)
        stored = stored_for(work, ledger, remembering)
        groups = groups_in(work, stored)
        if options.folds is None:
            rows = divide(
                work.source, groups, fraction=HOLD_OUT, seed=options.seed, report=remembering
            )
            tell_counts(work.source, rows, None, remembering)
            result = carry_out(work, rows, groups, stored, folder, remembering)
        else:
            result = run_folds(work, groups, stored, folder, remembering, carry_out)
        ledger.close()
        result = {"bad": ledger.bad, "repaired": ledger.repaired} | result
        result |= {"seconds": folder.spent, FROZEN: folder.time(FROZEN)}
        folder.finish(result)
        report_at_the_end(folder.path, remembering, work.source)
    return result


def _timing(folder: RunDir, report: Reporter) -> Reporter:
    """``report``, with what the frozen part takes kept in the run's record."""

    def heard(event: Event) -> None:
        if isinstance(event, StageFinished) and event.stage == STAGE:
            folder.add(FROZEN, event.seconds)
        report(event)

    return heard


def _settle(options: FinetuneOptions, report: Reporter) -> Work:
    assert options.data is not None
    devices = resolve_devices(options.device, report)
    source = open_data(options.data, report)
    # That it can be divided, before anything is computed.
    rows = holdout(source, fraction=HOLD_OUT, seed=options.seed, report=silent)
    check_learnt(source, rows)
    backbone = choose_backbone(
        options.model, options.weights, options.seed, report, headless=True
    )
    if isinstance(backbone, TorchvisionBackbone):
        replace_torchvision_head(backbone, len(source.classes), seed=options.seed)
        backbone.net.place(devices)
    else:
        replace_head(backbone.net, len(source.classes), seed=options.seed)
        place(backbone.net, backbone.name, devices)
    backbone.classes = source.classes
    backbone.preprocess = settle_exif(
        backbone.preprocess, options.exif, source, report, own_photos=True
    )
    tell_pack(source, backbone.preprocess, report)
    how = settle_how(options, backbone, len(source), report)
    rate_of(options.lr)  # that it is one
    use_deterministic(options.deterministic)
    autocast = autocast_of(options.precision, devices[0], report)
    threads = decode_threads(options.workers)
    return Work(options, source, backbone, how, devices[0], threads, autocast)


def carry_out(
    work: Work,
    rows: Holdout,
    groups: npt.NDArray[np.int64],
    stored: StoredViews | None,
    folder: RunDir,
    report: Remembering,
) -> dict[str, Any]:
    """Fits to one division of the images, in its folder, and returns the result."""
    write_split(folder.path / SPLIT_FILE, work.source, rows)
    importance = importance_of(work, rows, report)
    if not work.how.solved:
        plan = make_plan(work, rows, stored, importance, report)
        return FitRun(plan, folder, report)() | {"chosen_on": rows.split.value}
    assert stored is not None
    rows = replace(rows, train=stored.rows(rows.train))
    head = solve_head(work, rows.train, groups, stored, importance, report)
    if work.how.freeze is Freeze.AUTO:
        tried = unfreeze(work, rows, groups, stored, importance, folder, report, head)
        if tried is not None:
            return tried
    put_head(work, head)
    plan = make_plan(work, rows, stored, importance, silent)
    return judge_head(work, plan, stored, folder, report)
