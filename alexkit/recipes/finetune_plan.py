"""How a network learns one's own images in epochs: rates by depth, and how they fall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from alexkit.choices import Augment, Fall
from alexkit.errors import UsageError
from alexkit.events import Chosen, Note, Reporter
from alexkit.models.heads import Tail, freeze_through, rates_by_depth
from alexkit.models.layered import LayeredNet
from alexkit.models.torchvision_heads import TorchvisionTail, head_name
from alexkit.recipes.feed import mixing
from alexkit.recipes.inputs import Holdout, settled
from alexkit.recipes.plan import Plan
from alexkit.recipes.rate_finder import find_rate
from alexkit.recipes.stored import StoredViews, feed_of
from alexkit.training.optim import make_optimizer
from alexkit.training.schedule import Decay, Plateau, Schedule

if TYPE_CHECKING:
    from alexkit.recipes.finetune_work import Work

FIND = "find"
"""``--lr find``."""
EPOCHS = 20
"""Ours, those at which the rates below were compared on photos of flowers."""
BATCH_SIZE = 64
"""Ours: half of the paper's (NIPS 2012 §5), as a folder of some hundred images would have a few
steps an epoch only."""
LR = 0.001
"""A tenth of the rate the network was trained with (Girshick et al., R-CNN, §2.3, fine-tune
AlexNet at that rate)."""
HEAD_MULTIPLIER = 10.0
"""The new layer learns ten times as fast (Caffe, ``models/finetune_flickr_style``)."""
ON_POOL5 = 0.1
"""The same where the new layer reads pool5: its vectors are longer than fc7's (mean squared
length 40,000 for torchvision's weights on photos of flowers), and the steepest direction of
the loss grows with that square. On those photos 0.0001 for fc8 held out 81.5 %, 0.001 80.8 %
and 0.01 76.9 % (20 epochs, 4 seeds, no augmentation)."""
WEIGHT_DECAY = 0.0005
"""NIPS 2012 §5."""
WARMUP_SHARE = 0.05
"""Of the epochs: the new layer's first gradients are large."""


def make_plan(
    work: Work,
    rows: Holdout,
    stored: StoredViews | None,
    importance: npt.NDArray[np.float64] | None,
    report: Reporter,
) -> Plan:
    """What ``work`` asks for, and what it leaves open settled and said.

    Raises:
        UsageError: ``--lr`` is neither a rate nor ``find``.
    """
    options, how, backbone = work.options, work.how, work.backbone
    rule = "the default of finetune"
    epochs = settled("epochs", options.epochs, EPOCHS, rule, report)
    batch_size = settled("batch size", options.batch_size, BATCH_SIZE, rule, report)
    feed = feed_of(stored, how.after, augmented=how.augment is Augment.RANDOM)
    if options.mixup:
        feed = mixing(feed, options.mixup, len(work.source.classes))
    weights = None
    if importance is not None:
        weights = torch.from_numpy(importance).float().to(work.device)

    def plan_at(lr: float) -> Plan:
        return Plan(
            backbone=backbone,
            source=work.source,
            holdout=rows,
            optimizer=_optimizer(work),
            schedule=_schedule(options.schedule, lr, epochs),
            epochs=epochs,
            batch_size=batch_size,
            threads=work.threads,
            seed=options.seed,
            color=0.0,
            strict=options.strict,
            smoothing=options.smoothing,
            max_seconds=None if options.max_time is None else 60 * options.max_time,
            class_weights=weights,
            patience=options.patience or 0,
            tail=tail_of(work, how.after),
            feed=feed,
            autocast=work.autocast,
        )

    freeze_through(backbone.net, how.after)
    told = f"and {_head_rate(work):g} times that for the new layer"
    if options.lr == FIND:
        lr, sentence = find_rate(plan_at(LR))
        report(Note(sentence))
        report(Chosen("learning rate", f"{lr:.2g}", told))
        return plan_at(lr)
    return plan_at(settled("learning rate", rate_of(options.lr), LR, told, report))


def tail_of(work: Work, after: str | None) -> Tail | None:
    """What learns, where the layers up to ``after`` stay."""
    net = work.backbone.net
    if after is None:
        return None
    return Tail(net, after) if isinstance(net, LayeredNet) else TorchvisionTail(net, after)


def _optimizer(work: Work) -> torch.optim.SGD:
    net = work.backbone.net
    head = "fc8" if isinstance(net, LayeredNet) else f"network.{head_name(net)}"
    groups = rates_by_depth(net, head, _head_rate(work))
    return make_optimizer(groups, weight_decay=WEIGHT_DECAY)


def _head_rate(work: Work) -> float:
    net = work.backbone.net
    on_pool5 = isinstance(net, LayeredNet) and not {"fc7", "gap"} & net.layer_shapes().keys()
    return ON_POOL5 if on_pool5 else HEAD_MULTIPLIER


def _schedule(fall: Fall, lr: float, epochs: int) -> Schedule:
    if fall is Fall.PLATEAU:
        return Plateau(lr, patience=3)
    return Decay(lr, epochs, warmup=WARMUP_SHARE * epochs, cosine=True)


def rate_of(text: str | float | None) -> float | None:
    """``--lr`` as a number; None where it is left out or is to be found.

    Raises:
        UsageError: it is none of these.
    """
    if text is None or text == FIND:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate < float("inf"):
        raise UsageError(f"--lr {text} is no learning rate", hint="use e.g. 0.001, or find")
    return rate
