"""A network from its first weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter
from alexkit.models.heads import parameter_groups
from alexkit.models.specs import find_spec
from alexkit.models.zoo import load_backbone
from alexkit.recipes.devices import decode_threads, place, resolve_devices, use_deterministic
from alexkit.recipes.fitting import fit_in_run_dir
from alexkit.recipes.inputs import holdout, open_data, settled
from alexkit.recipes.options import TrainOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.plan import Plan
from alexkit.recipes.run_dir import Remembering
from alexkit.training.optim import make_optimizer
from alexkit.training.schedule import Decay, Plateau, Schedule, Steps

DEFAULT_MODEL = "alexnet"
HOLD_OUT = 0.1


@dataclass(frozen=True)
class Recipe:
    """How a network was trained by those it comes from.

    Attributes:
        source: where the figures are written.
        epochs, batch_size, lr, weight_decay: theirs.
        schedule: from the learning rate and the epochs.
        color: share of the run, from its start, with the 2012 colour noise.
        full_rate_classes: with fewer classes than this the rate is smaller in proportion.
            Biases of 1 make all units of fc7 positive, so the loss is steepest where all of
            fc8 moves at once, and that grows as 1 / classes: at 0.01 and 4 classes the loss
            rose from 1.4 to 6, at a third of it it did not.
    """

    source: str
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    schedule: Callable[[float, int], Schedule]
    color: float = 0.0
    full_rate_classes: int = 1


RECIPES = {
    "alexnet": Recipe(
        "NIPS 2012 §5: divided by 10 when the error stalls",
        epochs=90,
        batch_size=128,
        lr=0.01,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Plateau(lr),
        color=1.0,
        full_rate_classes=25,
    ),
    "alexnet-owt": Recipe(
        "pytorch/vision references/classification: divided by 10 every 30 epochs",
        epochs=90,
        batch_size=256,
        lr=0.01,
        weight_decay=0.0001,
        schedule=lambda lr, epochs: Steps(lr, (epochs / 3, epochs * 2 / 3)),
    ),
    "alexnet-bn": Recipe(
        "cvjena/cnn-models AlexNet_cvgj: along a line to 0",
        epochs=64,
        batch_size=256,
        lr=0.05,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Decay(lr, epochs),
    ),
    "bvlc-alexnet": Recipe(
        "BVLC/caffe bvlc_alexnet solver: divided by 10 every 100,000 of 450,000 steps",
        epochs=90,
        batch_size=256,
        lr=0.01,
        weight_decay=0.0005,
        schedule=lambda lr, epochs: Steps(lr, tuple(epochs * k / 4.5 for k in (1, 2, 3, 4))),
    ),
}
RECIPES["caffenet"] = RECIPES["bvlc-alexnet"]


def run(options: TrainOptions, report: Reporter) -> dict[str, Any]:
    """Trains ``options.model`` (default ``alexnet``) on ``options.data`` from random weights.

    Returns the held-out accuracy and where the run is; see the interface's ``run.json``.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; no run folder is made before the data, the
            network and the devices are known to be usable.
    """
    if options.data is None:
        raise UsageError("no data was named", hint="type: alexkit train imagenet/")
    report = Remembering(report)
    model = options.model or DEFAULT_MODEL
    slots = len(find_spec(model).empty().slots)
    devices = resolve_devices(options.device, report, most=slots)
    source = open_data(options.data, report)
    rows = holdout(source, fraction=HOLD_OUT, seed=options.seed, report=report)
    backbone = load_backbone(
        model, "random", seed=options.seed, num_classes=len(source.classes)
    )
    place(backbone.net, model, devices)
    backbone.classes = source.classes
    backbone.preprocess = settle_exif(backbone.preprocess, options.exif, source, report)
    if options.model is None:
        report(Chosen("network", model, "the default of train"))
    recipe = RECIPES[backbone.spec.name]
    epochs = settled("epochs", options.epochs, recipe.epochs, recipe.source, report)
    batch_size = settled(
        "batch size", options.batch_size, recipe.batch_size, recipe.source, report
    )
    few = min(1.0, len(source.classes) / recipe.full_rate_classes)
    scaled = recipe.lr * batch_size / recipe.batch_size * few
    rule = f"{recipe.lr:g} for a batch of {recipe.batch_size}"
    if few < 1:
        rule += f" and {recipe.full_rate_classes} classes or more"
    lr = settled("learning rate", options.lr, scaled, rule, report)
    use_deterministic(options.deterministic)
    plan = Plan(
        backbone=backbone,
        source=source,
        holdout=rows,
        optimizer=make_optimizer(
            parameter_groups(backbone.net, 1.0), weight_decay=recipe.weight_decay
        ),
        schedule=recipe.schedule(lr, epochs),
        epochs=epochs,
        batch_size=batch_size,
        threads=decode_threads(options.workers),
        seed=options.seed,
        color=recipe.color,
        max_seconds=None if options.max_time is None else 60 * options.max_time,
        strict=options.strict,
    )
    return fit_in_run_dir("train", options, plan, report)
