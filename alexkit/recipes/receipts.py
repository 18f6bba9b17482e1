"""The recipes of ``train``, each with its source and what it is known to reach.

CHM = computerhistory/AlexNet-Source-Code, ``layers/layer-params-145.cfg``. No source has a
table of its accuracy along the way. Two points of others' runs at a rate of 0.01 are known:
16.0 % top-1 after 7,000 steps of 256, 1.4 epochs (BVLC/caffe #2436), and 43.9 % after 20 epochs
(apache/mxnet #269). The bands at 5 and 25 % of a run are wide brackets around these, drawn by
us; that at the end is around the published figure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from alexkit.recipes.classes import IMAGENET_CLASSES
from alexkit.training.schedule import Decay, Plateau, Schedule, Steps

EARLY, QUARTER = 0.05, 0.25
"""Shares of a run after which it is held against a band; after the first, a loss as high as at
the start tells that it is stuck."""

STUCK_WITHIN = 0.05
"""Nats below ln 1000 = 6.908: users of Caffe's networks report 6.9 (BVLC/caffe #59, #2085)."""

END_BAND = 0.01
"""How far below its figure a finished run may end before it is said. Ours: no source
documents the spread between runs."""

ABOVE = 0.03
"""How far above it, before that is said."""

Band = tuple[float, float]
"""Top-1 on ILSVRC-2012 validation images, centre crop, as fractions: from, to."""

PLAIN_EARLY: Band = (0.15, 0.45)
BEFORE_THE_DROP: Band = (0.38, 0.55)


@dataclass(frozen=True)
class Figure:
    """A published accuracy on ILSVRC-2012 validation images, as fractions: of the centre crop,
    or of the ten views."""

    top1: float
    top5: float
    where: str

    @property
    def band(self) -> Band:
        """Where a finished run should end."""
        return self.top1 - END_BAND, self.top1 + ABOVE


@dataclass(frozen=True)
class Recipe:
    """How a network was trained by those it comes from.

    Attributes:
        source: where the figures are written.
        models: the networks it is for, its own first.
        epochs, batch_size, lr, weight_decay: theirs.
        schedule: from the learning rate and the epochs.
        color: share of the run, from its start, with the 2012 colour noise.
        full_rate_classes: with fewer classes than this the rate is smaller in proportion.
            Biases of 1 make all units of fc7 positive, so the loss is steepest where all of
            fc8 moves at once, and that grows as 1 / classes: at 0.01 and 4 classes the loss
            rose from 1.4 to 6, at a third of it it did not.
        bias_rate: what the rate of biases and batch norm is multiplied by.
        bias_decay: whether weight decay takes them in.
        smoothing: of the labels.
        average: whether the average of the weights is judged and written.
        sides: see :class:`alexkit.recipes.plan.Plan`.
        lars: rates by layer (:mod:`alexkit.training.lars`).
        early, quarter, end: where top-1 should be after 5, 25 and 100 % of the epochs; the
            end's is that of ``figure`` where there is one.
        figure: what it reached at the centre crop, where that is published.
        ten_view: the same of the ten views (paper §4.1).
        views: whether the ten views judge it too, at its end.
    """

    source: str
    models: tuple[str, ...]
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Callable[[float, int], Schedule]
    color: float = 0.0
    full_rate_classes: int = 1
    bias_rate: float = 1.0
    bias_decay: bool = True
    smoothing: float = 0.0
    average: bool = False
    sides: tuple[tuple[float, int], ...] = ()
    lars: bool = False
    early: Band = PLAIN_EARLY
    quarter: Band = BEFORE_THE_DROP
    end: Band | None = None
    figure: Figure | None = None
    ten_view: Figure | None = None
    views: bool = False

    @property
    def last_band(self) -> Band | None:
        return self.figure.band if self.figure else self.end


ABLATED = ("no-lrn", "no-overlap", "half", "tanh", "no-dropout")
"""Words of ``--ablate`` that make another network; ``no-color`` makes another recipe."""

_BN = ("alexnet-bn", "alexnet-bn-gap")
_CVGJ = "cvjena/cnn-models AlexNet_cvgj: along a line to 0"

RECIPES = {
    "paper": Recipe(
        "NIPS 2012 §5: divided by 10 when the error stalls",
        models=("alexnet", *(f"alexnet-{word}" for word in ABLATED)),
        epochs=90,
        batch_size=128,
        lr=0.01,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Plateau(lr),
        color=1.0,
        full_rate_classes=25,
        end=(0.55, 0.60),  # two points below the ten views, as in cuda-convnet2's wiki
        ten_view=Figure(0.593, 0.818, "NIPS 2012, table 2, one network"),
        views=True,
    ),
    # The code's rate of biases stays at 0.02 to the end; here it falls with that of weights.
    # Its division of noisy pixels by 1.1, and its conv1 stopping at epoch 72, are left out.
    "code-145": Recipe(
        "CHM, comments: divided by 10 after epochs 25, 51 and 79 of 91, no noise from 67 on",
        models=("alexnet-code-145",),
        epochs=91,
        batch_size=128,
        lr=0.01,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Steps(lr, tuple(epochs * k / 91 for k in (25, 51, 79))),
        color=67 / 91,
        full_rate_classes=25,
        bias_rate=2.0,
        bias_decay=False,
        end=(0.55, 0.60),
        ten_view=Figure(0.59336, 0.81790, "CHM, line 182"),
        views=True,
    ),
    "caffe": Recipe(
        "BVLC/caffe bvlc_alexnet solver: divided by 10 every 100,000 of 450,000 steps",
        models=("bvlc-alexnet", "caffenet"),
        epochs=90,
        batch_size=256,
        lr=0.01,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Steps(lr, tuple(epochs * k / 4.5 for k in (1, 2, 3, 4))),
        bias_rate=2.0,
        bias_decay=False,
        quarter=(0.45, 0.58),  # the first drop is behind it
        figure=Figure(0.571, 0.802, "BVLC/caffe models/bvlc_alexnet readme"),
    ),
    "owt": Recipe(
        "pytorch/vision references/classification: divided by 10 every 30 epochs",
        models=("alexnet-owt",),
        epochs=90,
        batch_size=256,
        lr=0.01,
        weight_decay=0.0001,
        schedule=lambda lr, epochs: Steps(lr, (epochs / 3, epochs * 2 / 3)),
        figure=Figure(0.56522, 0.79066, "torchvision AlexNet_Weights.IMAGENET1K_V1"),
    ),
    # Smoothing, averaging and no decay of batch norm are ours, beside the source's schedule.
    "bn60": Recipe(
        _CVGJ,
        models=_BN,
        epochs=64,
        batch_size=256,
        lr=0.05,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Decay(lr, epochs),
        bias_decay=False,
        smoothing=0.1,
        average=True,
        early=(0.15, 0.50),
        quarter=(0.35, 0.58),
        figure=Figure(0.601, 0.819, "cvjena/cnn-models AlexNet_cvgj"),
    ),
    # The sizes and where they change are ours; nothing is published for this network.
    "fast": Recipe(
        f"{_CVGJ}; from 128 over 192 to 224 pixels",
        models=_BN,
        epochs=16,
        batch_size=256,
        lr=0.05,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Decay(lr, epochs),
        bias_decay=False,
        smoothing=0.1,
        average=True,
        sides=((0.0, 128), (0.5, 192), (0.8, 224)),
        early=(0.02, 0.40),
        quarter=(0.20, 0.50),
        end=(0.53, 0.60),
    ),
    # You et al. give LARS its η and the square; the rate at this batch is ours, untried.
    "large": Recipe(
        "You, Gitman, Ginsburg, arXiv 1708.03888: LARS, the square of a line to 0",
        models=_BN,
        epochs=100,
        batch_size=8192,
        lr=8.0,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Decay(lr, epochs, warmup=0.05 * epochs, power=2),
        bias_decay=False,
        lars=True,
        early=(0.05, 0.45),
        quarter=(0.35, 0.58),
        end=(0.57, 0.61),
    ),
}


ABLATED_TEN_VIEW = {
    "alexnet-no-lrn": Figure(0.57966, 0.80638, "CHM layer-params-148, line 148"),
    "alexnet-no-overlap": Figure(0.58942, 0.81490, "CHM layer-params-147, line 174"),
}
"""Of the paper's ablations, those logged on ILSVRC-2012."""

OTHER_FIGURES = {"caffenet": Figure(0.574, 0.804, "BVLC/caffe models/bvlc_reference_caffenet")}


def recipe_for(name: str, model: str) -> Recipe:
    """The recipe called ``name`` with what is known of ``model`` under it: figures are of a
    network, and a recipe's own are of its first."""
    recipe = RECIPES[name]
    if model == recipe.models[0]:
        return recipe
    return replace(
        recipe,
        figure=OTHER_FIGURES.get(model),
        ten_view=ABLATED_TEN_VIEW.get(model),
        end=None,
    )


def recipe_of(model: str) -> str:
    """The name of the recipe a network is trained by unless another is asked for."""
    return next(name for name, recipe in RECIPES.items() if model in recipe.models)


def bands(recipe: Recipe, epochs: int) -> dict[int, Band]:
    """Epoch -> where top-1 should be after it, on ImageNet's 1,000 classes; none in a run of
    fewer epochs than the recipe's, of which nothing is known."""
    if epochs < recipe.epochs:
        return {}
    found = {
        max(1, math.ceil(EARLY * epochs)): recipe.early,
        max(1, math.ceil(QUARTER * epochs)): recipe.quarter,
    }
    return found | ({epochs: recipe.last_band} if recipe.last_band else {})


def told_bands(recipe: Recipe, epochs: int) -> str:
    """:func:`bands` in one line."""
    return ", ".join(
        f"{low:.0%} to {high:.0%} after epoch {epoch}"
        for epoch, (low, high) in bands(recipe, epochs).items()
    )


def watcher(
    recipe: Recipe, classes: int, epochs: int
) -> Callable[[dict[str, float]], str | None]:
    """What looks at each row of the metrics, and returns a sentence when a run of ImageNet's
    1,000 classes is not where it should be: a loss still that of guessing after 5 % of the
    epochs, or an accuracy outside the band. Other data have no such figures."""
    expected = bands(recipe, epochs)
    early = max(1, math.ceil(EARLY * epochs))
    guessing = math.log(IMAGENET_CLASSES) - STUCK_WITHIN

    def watch(row: dict[str, float]) -> str | None:
        if classes != IMAGENET_CLASSES:
            return None
        epoch = int(row["epoch"])
        if epoch == early and row["loss"] > guessing:
            return (
                f"after epoch {early} the held-out loss is {row['loss']:.2f}, that of guessing "
                "(6.91): the run is stuck; another --seed or a lower --lr may free it"
            )
        band = expected.get(epoch)
        return outside(row["top1"], band, f"after epoch {epoch}") if band else None

    return watch


def outside(top1: float, band: Band, when: str) -> str | None:
    """A sentence if an accuracy is not within its band."""
    low, high = band
    told = f"top-1 {when} is {top1:.1%}, expected was {low:.1%} to {high:.1%}"
    if top1 < low:
        return f"{told}: the run learns less than it should"
    if top1 > high:
        return f"{told}: are held-out images among the training images?"
    return None
