"""The pieces of a fine-tuning: what is stored, how classes weigh, the head that is solved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexkit.choices import Augment, Balance
from alexkit.events import Chosen, Note, Reporter, Saved, silent
from alexkit.images.draws import Rows
from alexkit.images.source import ImageSource
from alexkit.images.views import Views
from alexkit.models.heads import attach_head
from alexkit.models.layered import LayeredNet
from alexkit.models.torchvision_heads import linear_head
from alexkit.models.torchvision_nets import TorchvisionBackbone
from alexkit.models.weights import write_weights
from alexkit.models.zoo import Backbone
from alexkit.probes.metrics import top_k
from alexkit.recipes.division import folds_of, groups_of
from alexkit.recipes.extraction import Job, settle_batch_size
from alexkit.recipes.finetune_words import How
from alexkit.recipes.inputs import Holdout
from alexkit.recipes.layers import Stored
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.options import FinetuneOptions
from alexkit.recipes.plan import Plan
from alexkit.recipes.predictions import PREDICTIONS, Predictions
from alexkit.recipes.run_dir import RUNS, RunDir
from alexkit.recipes.solved_head import Solved, folds_for, solve
from alexkit.recipes.stored import StoredViews, stored_values, usable_views
from alexkit.training.loop import validate

VIEWS = {Augment.VIEWS: Views("flip"), Augment.CORNERS: Views("ten")}
UNEVEN = 3
"""The ratio of the largest class to the smallest from which rare classes weigh more."""
CACHE = "cache"
AT_ONCE = 64
"""Images whose stored views are judged together."""


@dataclass
class Work:
    """All that is settled before the run folder is made."""

    options: FinetuneOptions
    source: ImageSource
    backbone: Backbone | TorchvisionBackbone
    how: How
    device: torch.device
    threads: int
    autocast: torch.dtype | None


def stored_for(work: Work, ledger: Ledger, report: Reporter) -> StoredViews | None:
    """The frozen part's values of every image, where they are kept."""
    how = work.how
    if not how.stored:
        return None
    assert how.after is not None
    values = int(np.prod(work.backbone.net.layer_shapes()[how.after]))
    asked = VIEWS.get(how.augment, Views())
    asked.places(work.backbone.preprocess)  # that there is room for them
    views = usable_views(values, len(work.source), asked)
    if views != asked:
        report(Note(f"views: {views}, as {asked} of {len(work.source):,} images are too many"))
    return stored_part(work, how.after, views, ledger, report)


def stored_part(
    work: Work,
    layer: str,
    views: Views,
    ledger: Ledger,
    report: Reporter,
) -> StoredViews:
    """The values of ``layer`` of every image, from the file beside the runs."""
    out = work.options.out
    place = (RUNS if out is None else out.absolute().parent) / CACHE
    stored = Stored.one_layer(work.backbone, layer, views)
    size = settle_batch_size(None, work.backbone, stored, work.device, silent)
    job = Job(work.source, work.backbone, stored, work.device, size, work.threads)
    return stored_values(job, place, ledger, report)


def groups_in(work: Work, stored: StoredViews | None) -> npt.NDArray[np.int64]:
    features, rows = None, np.empty(0, np.int64)
    if stored is not None:
        rows = stored.usable
        features = stored.values[rows, stored.center].flatten(1).numpy()
    return groups_of(work.source, work.threads, rows, features)


def importance_of(
    work: Work, rows: Holdout, report: Reporter
) -> npt.NDArray[np.float64] | None:
    """(K) what each class's loss is multiplied by, mean over the images 1; None is 1."""
    labels = np.asarray(work.source.labels)[rows.train]
    counts = np.bincount(labels, minlength=len(work.source.classes))
    there = counts[counts > 0]
    uneven = there.max() > UNEVEN * there.min()
    balance = work.options.balance
    if balance is Balance.NONE or (balance is Balance.AUTO and not uneven):
        return None
    report(
        Chosen(
            "weights of classes",
            "by their rarity",
            f"{there.max()} images in the largest, {there.min()} in the smallest;"
            " --balance none counts every image once",
        )
    )
    return np.asarray(labels.size / (there.size * np.maximum(counts, 1)))


def solve_head(
    work: Work,
    train: Rows,
    groups: npt.NDArray[np.int64],
    stored: StoredViews,
    importance: npt.NDArray[np.float64] | None,
    report: Reporter,
) -> Solved:
    """The convex fit on stored views, the centre first."""
    order = [stored.center, *(v for v in range(len(stored.views)) if v != stored.center)]
    values = stored.values[train][:, order].flatten(2)
    labels = np.asarray(work.source.labels)[train].astype(np.int64)
    fold = folds_of(labels, groups[train], folds_for(len(train)), work.options.seed)
    return solve(
        work.how.head,
        values,
        labels,
        fold,
        classes=len(work.source.classes),
        maps=stored.values.shape[2] if stored.values.ndim == 5 else None,
        importance=importance,
        report=report,
    )


def put_head(work: Work, head: Solved) -> None:
    """Makes a solved head the network's last layer."""
    net = work.backbone.net
    if isinstance(net, LayeredNet):
        last = attach_head(net, len(head.bias), units=head.units)
    else:
        last = linear_head(net)
    last.load_state_dict(head.tensors)


def restore(work: Work, state: Mapping[str, Tensor]) -> None:
    """Gives the network the tensors that it had when its last layer was new."""
    net = work.backbone.net
    if isinstance(net, LayeredNet):
        attach_head(net, len(work.source.classes))
    net.load_canonical(state)


def judge(work: Work, plan: Plan, predictions: Predictions | None = None) -> dict[str, float]:
    """The network as it is on what a plan judges by: loss, top1, top5 and n."""
    seen = (lambda batch, logits: None) if predictions is None else predictions.add
    ledger = Ledger(None, strict=False, report=silent)
    batches, prepare = plan.feed(plan, ledger).judging(plan.holdout.judged)
    return validate(plan.net, batches, prepare=prepare, seen=seen)


def write_both(work: Work, folder: Path) -> None:
    """Writes the network as it is, as the best and the last of its run."""
    state, metadata = work.backbone.net.canonical_state_dict(), work.backbone.metadata()
    for name in ("best", "last"):
        write_weights(folder / f"{name}.safetensors", state, metadata)


@torch.inference_mode()
def judge_views(work: Work, plan: Plan, stored: StoredViews) -> float:
    """The share of held-out images that the network as it is names right by the mean of its
    probabilities over the stored views, as ``validate --views`` does."""
    rows, labels = stored.rows(plan.holdout.judged), np.asarray(work.source.labels, np.int64)
    found = []
    for some in np.array_split(rows, range(AT_ONCE, len(rows), AT_ONCE)):
        values = stored.values[some].flatten(0, 1).to(work.device)
        p = plan.net.eval()(values).softmax(dim=1).view(len(some), len(stored.views), -1)
        found.append(p.mean(dim=1).cpu().numpy())
    return top_k(np.concatenate(found), labels[rows], 1)


def judge_head(
    work: Work, plan: Plan, stored: StoredViews, folder: RunDir, report: Reporter
) -> dict[str, Any]:
    """Writes the network as it is, once its held-out accuracy is known."""
    predictions = Predictions(work.source, work.source.classes)
    judged = plan.holdout
    scores = judge(work, plan, predictions)
    write_both(work, folder.path / "weights")
    predictions.write(folder.path / PREDICTIONS)
    report(Saved("weights", str(folder.path / "weights" / "best.safetensors")))
    averaged = {}
    if len(stored.views) > 1:
        averaged = {
            "top1_of_views": judge_views(work, plan, stored),
            "views": str(stored.views),
        }
        report(
            Note(
                f"held out, by the mean of {len(stored.views)} views: "
                f"{averaged['top1_of_views']:.1%} "
                f"(predict and validate: --views {stored.views})"
            )
        )
    return averaged | {
        "top1": scores["top1"],
        "top5": scores["top5"],
        "split": judged.split.value,
        "n": int(scores["n"]),
        "best_epoch": 0,
        "epochs": 0,
        "model": work.backbone.name,
        "classes": len(work.source.classes),
        "train_images": len(judged.train),
        "head": work.how.head.value,
        "seconds": folder.spent,
        "run": str(folder.path),
    }
