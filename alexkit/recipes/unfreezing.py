"""Layers below the head learn too, from the top down, while that helps on images that neither
they nor the head have learnt from."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from alexkit.choices import Augment, FitHead, Freeze
from alexkit.events import (
    Event,
    Note,
    Reporter,
    StageAdvanced,
    StageFinished,
    StageStarted,
    silent,
)
from alexkit.images.views import Views
from alexkit.models.layered import LayeredNet
from alexkit.recipes.division import folds_of
from alexkit.recipes.finetune_plan import make_plan
from alexkit.recipes.finetune_work import (
    Work,
    judge,
    put_head,
    restore,
    solve_head,
    stored_part,
)
from alexkit.recipes.fitting import FitRun
from alexkit.recipes.inputs import Holdout
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.run_dir import Remembering, RunDir, result_in
from alexkit.recipes.solved_head import Solved
from alexkit.recipes.stored import StoredViews

RUNGS = {"fc7": ("fc6", "pool5"), "pool5": ("conv4",), "gap": ("conv4",)}
"""What the head reads -> layers after which all learns, tried one after the other."""
PARTS = 3
"""Of the training images, one of which judges a rung."""
EPOCHS = 3
"""Ours: the head is fitted already, and the layers below begin at what they were taught."""
GAIN, GAINED = 0.01, 3
"""The least a rung must gain, as a share of the images it is tried on and in images: one or two
are chance."""
FEWEST = 50
"""Images to try on below which a difference would be chance."""
TRIALS = "trials"


def unfreeze(
    work: Work,
    rows: Holdout,
    groups: npt.NDArray[np.int64],
    stored: StoredViews,
    importance: npt.NDArray[np.float64] | None,
    folder: RunDir,
    report: Remembering,
    head: Solved,
) -> dict[str, Any] | None:
    """Tries the rungs inside the training images, and fits the best one to all of them.

    Two thirds of the training images learn and a third judges; the held-out images are not
    looked at. Every trial, and the fit, begins at the head as it was solved on its own rows.

    Returns:
        The result of the fit; None where no rung gains, or there are too few images to tell.
    """
    net = work.backbone.net
    if not isinstance(net, LayeredNet) or work.how.after not in RUNGS:
        return None
    labels = np.asarray(work.source.labels)[rows.train].astype(np.int64)
    fold = folds_of(labels, groups[rows.train], PARTS, work.options.seed)
    inner = Holdout(rows.train[fold != 0], rows.train[fold == 0], rows.split)
    seen = set(np.unique(np.asarray(work.source.labels)[inner.train]).tolist())
    if len(inner.judged) < FEWEST or seen != set(np.unique(labels).tolist()):
        report(Note("too few images to try whether more layers should learn"))
        return None
    pristine = _copied(work)
    within = solve_head(work, inner.train, groups, stored, importance, silent)
    put_head(work, within)
    best = judge(work, make_plan(work, inner, stored, importance, silent))["top1"]
    report(Note(f"the head alone: {best:.1%} on {len(inner.judged)} of the training images"))
    chosen: Work | None = None
    tried_on = len(inner.judged)
    for after in RUNGS[work.how.after]:
        rung = _rung(work, after)
        restore(work, pristine)
        put_head(work, within)
        top1 = _tried(rung, inner, importance, folder, report)
        told = f"learning after {after} too: {top1:.1%}"
        if round((top1 - best) * tried_on) < max(GAINED, GAIN * tried_on):
            report(Note(f"{told}, no gain: it stays as it was"))
            break
        report(Note(f"{told}, a gain of {100 * (top1 - best):.1f} points"))
        best, chosen = top1, rung
    restore(work, pristine)
    if chosen is None:
        return None
    put_head(work, head)
    plan = _plan(chosen, rows, importance, report, report)
    return FitRun(plan, folder, report)() | {"unfrozen_after": chosen.how.after}


def _rung(work: Work, after: str) -> Work:
    how = replace(work.how, after=after, head=FitHead.FC, freeze=Freeze.NONE)
    options = replace(work.options, epochs=EPOCHS)
    return replace(work, how=replace(how, augment=Augment.NONE), options=options)


def _plan(
    rung: Work,
    rows: Holdout,
    importance: npt.NDArray[np.float64] | None,
    report: Reporter,
    progress: Reporter,
) -> Any:
    """Of stored centres; the last epoch counts, so that none is chosen by what judges."""
    assert rung.how.after is not None
    ledger = Ledger(None, strict=False, report=silent)
    stored = stored_part(rung, rung.how.after, Views(), ledger, progress)
    return replace(make_plan(rung, rows, stored, importance, report), keep_last=True)


def _tried(
    rung: Work,
    inner: Holdout,
    importance: npt.NDArray[np.float64] | None,
    folder: RunDir,
    report: Remembering,
) -> float:
    """The accuracy of a trial, in a folder of its own; one that is done is not repeated."""
    place = folder.path / TRIALS / f"after-{rung.how.after}"
    if done := result_in(place):
        return float(done["top1"])

    def stages_only(event: Event) -> None:
        if isinstance(event, StageStarted | StageAdvanced | StageFinished):
            report(event)

    plan = _plan(rung, inner, importance, silent, stages_only)
    muted = Remembering(stages_only)
    with RunDir.open("finetune", replace(rung.options, out=place), muted) as trial:
        result = FitRun(plan, trial, muted)()
        trial.finish(result)
    return float(result["top1"])


def _copied(work: Work) -> dict[str, Tensor]:
    return copy.deepcopy(work.backbone.net.canonical_state_dict())
