"""A network judged by the paper's ten views (§4.1): "averaging the predictions made by the
network's softmax layer on the ten patches"."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.events import Reporter, Stage
from alexkit.images.batches import Batch
from alexkit.images.preprocess import Preprocess
from alexkit.images.views import Views
from alexkit.recipes.feed import Pixels
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.plan import Plan
from alexkit.training.loop import validate

TEN = Views("ten")


class OverViews(nn.Module):
    """A network whose answer is the mean of its probabilities over the ten views of an image.

    Args:
        net: gives logits (N, K) of (N, 3, S, S) float32.
        preprocess: cuts and normalises the views.
    """

    def __init__(self, net: nn.Module, preprocess: Preprocess) -> None:
        super().__init__()
        self.net = net
        self.preprocess = preprocess

    def forward(self, squares: Tensor) -> Tensor:
        """The logarithm of the mean probability, (N, K) float32, of (N, R, R, 3) uint8
        squares; one view at a time, so that ten take no more memory than one."""
        total: Tensor | float = 0.0
        for cut in TEN.cut(squares, self.preprocess):
            logits: Tensor = self.net(self.preprocess.normalise(cut))
            total = total + F.softmax(logits.float(), dim=1)
        return torch.log(total / len(TEN))  # type: ignore[arg-type]


def judge_by_ten_views(
    net: nn.Module, plan: Plan, ledger: Ledger, between: Callable[[], None], report: Reporter
) -> dict[str, float]:
    """Judges ``net`` on the held-out images of a plan, each once; as
    :func:`alexkit.training.loop.validate` tells it. ``between`` is called at each batch."""
    preprocess, rows = plan.backbone.preprocess, plan.holdout.judged
    batches, made = Pixels(plan, ledger).whole(rows)
    over = OverViews(net, preprocess)
    with Stage(report, "ten views", len(rows), "images") as stage:

        def prepare(batch: Batch) -> tuple[Tensor, Tensor]:
            between()
            stage.reach(min(stage.done + plan.batch_size, len(rows)))
            return made(batch)

        return validate(
            over, batches, prepare=prepare, autocast=plan.autocast, placement=plan.placement
        )
