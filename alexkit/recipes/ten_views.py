"""A network judged by the paper's ten views (§4.1): "averaging the predictions made by the
network's softmax layer on the ten patches"."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.events import Reporter, StageAdvanced, StageFinished, StageStarted
from alexkit.images.batches import Batch
from alexkit.images.preprocess import Preprocess
from alexkit.images.views import Views
from alexkit.recipes.feed import Pixels
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.plan import Plan
from alexkit.training.loop import validate

TEN = Views("ten")


class OverViews(nn.Module):
    """A network whose answer is the mean of its probabilities over ``views`` of an image.

    Args:
        net: gives logits (N, K) of (N, 3, S, S) float32.
        preprocess: cuts and normalises the views.
    """

    def __init__(self, net: nn.Module, preprocess: Preprocess, views: Views = TEN) -> None:
        super().__init__()
        self.net = net
        self.preprocess = preprocess
        self.views = views

    def forward(self, squares: Tensor) -> Tensor:
        """The logarithm of the mean probability, (N, K) float32, of (N, R, R, 3) uint8
        squares; one view at a time, so that ten take no more memory than one."""
        total: Tensor | float = 0.0
        for cut in self.views.cut(squares, self.preprocess):
            logits: Tensor = self.net(self.preprocess.normalise(cut))
            total = total + F.softmax(logits.float(), dim=1)
        return torch.log(total / len(self.views))  # type: ignore[arg-type]


def judge_by_ten_views(
    net: nn.Module, plan: Plan, ledger: Ledger, between: Callable[[], None], report: Reporter
) -> dict[str, float]:
    """Judges ``net`` on the held-out images of a plan, each once; as
    :func:`alexkit.training.loop.validate` tells it. ``between`` is called at each batch."""
    preprocess, rows = plan.backbone.preprocess, plan.holdout.judged
    batches, made = Pixels(plan, ledger).whole(rows)
    stage, began, done = "ten views", time.monotonic(), 0
    report(StageStarted(stage, len(rows), "images"))

    def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
        nonlocal done
        between()
        report(StageAdvanced(stage, done))
        done = min(done + plan.batch_size, len(rows))
        return made(batch)

    over = OverViews(net, preprocess)
    scores = validate(
        over, batches, prepare=prepare, autocast=plan.autocast, placement=plan.placement
    )
    report(StageFinished(stage, len(rows), time.monotonic() - began))
    return scores
