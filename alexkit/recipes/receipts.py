"""The recipes of ``train``, each with its source and what it is known to reach.

CHM = computerhistory/AlexNet-Source-Code, ``layers/layer-params-145.cfg``. No source gives
its accuracy along the way, so the only figures are those at the end; early on, a run is held
against what is known of a failing one (:func:`watcher`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from alexkit.training.schedule import Decay, Plateau, Schedule, Steps

IMAGENET_CLASSES = 1000
EARLY = 0.05
"""The share of a run after which a loss as high as at the start tells that it is stuck."""

STUCK_WITHIN = 0.05
"""Nats below ln 1000 = 6.908: users of Caffe's networks report 6.9 (BVLC/caffe #59, #2085)."""

END_BAND = 0.01
"""How far below its figure a finished run may end before it is said. Ours: no source
documents the spread between runs."""


@dataclass(frozen=True)
class Figure:
    """A published accuracy on ILSVRC-2012 validation images, centre crop, as fractions."""

    top1: float
    top5: float
    where: str


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
        figure: what it reached, where that is published.
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
    figure: Figure | None = None


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
    ),
}


def recipe_of(model: str) -> str:
    """The name of the recipe a network is trained by unless another is asked for."""
    return next(name for name, recipe in RECIPES.items() if model in recipe.models)


def watcher(
    recipe: Recipe, classes: int, epochs: int
) -> Callable[[dict[str, float]], str | None]:
    """What looks at each row of the metrics, and returns a sentence when a run of ImageNet's
    1,000 classes is not where it should be: a loss still that of guessing after 5 % of the
    epochs, an accuracy at the end below the published one. Other data have no such figures."""
    early = max(1, math.ceil(EARLY * epochs))
    guessing = math.log(IMAGENET_CLASSES) - STUCK_WITHIN

    def watch(row: dict[str, float]) -> str | None:
        if classes != IMAGENET_CLASSES:
            return None
        if row["epoch"] == early and row["loss"] > guessing:
            return (
                f"after epoch {early} the held-out loss is {row['loss']:.2f}, that of guessing "
                "(6.91): the run is stuck; another --seed or a lower --lr may free it"
            )
        figure = recipe.figure
        if row["epoch"] == epochs and figure and row["top1"] < figure.top1 - END_BAND:
            return (
                f"top-1 is {row['top1']:.1%}, and {figure.top1:.1%} was to be expected "
                f"({figure.where})"
            )
        return None

    return watch
