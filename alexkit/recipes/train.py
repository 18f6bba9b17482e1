"""A network from its first weights."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

import torch

from alexkit.choices import Ablate, Head, Parallel, RecipeName
from alexkit.errors import UsageError
from alexkit.events import Chosen, Reporter, Warned, only_the_end, silent
from alexkit.models.layered import LayeredNet
from alexkit.models.specs import find_spec
from alexkit.models.zoo import Backbone, load_backbone
from alexkit.recipes.classes import IMAGENET_CLASSES
from alexkit.recipes.devices import (
    autocast_of,
    decode_threads,
    devices_of_rank,
    place,
    resolve_devices,
    use_deterministic,
)
from alexkit.recipes.fitting import fit_in_run_dir
from alexkit.recipes.inputs import holdout, open_data, settled
from alexkit.recipes.options import TrainOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.placing import Asked, placed, use_all_cores
from alexkit.recipes.plan import Plan
from alexkit.recipes.receipts import (
    RECIPES,
    Recipe,
    outside,
    recipe_for,
    recipe_of,
    told_bands,
    watcher,
)
from alexkit.recipes.run_dir import Remembering
from alexkit.training.lars import rescale
from alexkit.training.launch import Ranks, launched
from alexkit.training.optim import make_optimizer
from alexkit.training.parallel import leave

DEFAULT_MODEL = "alexnet"
HOLD_OUT = 0.1
"""Of each class, where the data has no split of its own, which ImageNet has. Ours: training
from random weights wants every image more than ``finetune`` does, which holds out a fifth."""


def run(options: TrainOptions, report: Reporter) -> dict[str, Any]:
    """Trains ``options.model`` (default ``alexnet``) on ``options.data`` from random weights.

    Returns the held-out accuracy and where the run is; see the interface's ``run.json``.
    Nothing, in a process that the others go on without.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`; no run folder is made before the data, the
            network and the devices are known to be usable.
    """
    if options.data is None:
        raise UsageError("no data was named", hint="type: alexkit train imagenet/")
    with Ranks.launched() as ranks:
        remembering = Remembering(only_the_end(report) if ranks.rank else report)
        plan = make_plan(options, remembering, ranks)
        if plan.placement.world < ranks.world:
            leave()
            if ranks.rank:
                return {}
            use_all_cores()
        result = fit_in_run_dir(options, plan, remembering)
        leave()
    recipe = chosen_recipe(options)[2]
    figure, whole = recipe.ten_view, result["epochs"] >= recipe.epochs
    if figure is not None and whole and result["classes"] == IMAGENET_CLASSES:
        told = outside(result["ten_view"]["top1"], figure.band, "of ten views")
        if told is not None:
            remembering(Warned(told))
    return result


def processes(options: TrainOptions) -> int:
    """How many processes to start for ``options``: one a GPU where they are to share each
    batch, and 1 where a launcher has started this one or there is nothing to share.

    Raises:
        UsageError, DeviceMissing: see :func:`~alexkit.recipes.devices.resolve_devices`.
    """
    alone = options.parallel in (Parallel.SINGLE, Parallel.TOWERS)
    if alone or launched() or not torch.cuda.is_available():
        return 1
    return len(resolve_devices(options.device, silent, most=torch.cuda.device_count()))


def make_plan(options: TrainOptions, report: Reporter, ranks: Ranks | None = None) -> Plan:
    """What ``options`` ask for, and what they leave open settled and said; for each of
    ``ranks`` its part of it."""
    assert options.data is not None
    ranks = ranks or Ranks()
    name, model, recipe = chosen_recipe(options)
    devices = _devices(options, model, ranks, report)
    source = open_data(options.data, report)
    rows = holdout(source, fraction=HOLD_OUT, seed=options.seed, report=report)

    make = functools.partial(_network, model, options.seed, len(source.classes), devices)
    backbone = make()
    backbone.classes = source.classes
    backbone.preprocess = settle_exif(backbone.preprocess, options.exif, source, report)
    use_deterministic(options.deterministic)
    _tell_choice(options, name, model, recipe, report)
    epochs = settled("epochs", options.epochs, recipe.epochs, recipe.source, report)
    batch_size = settled(
        "batch size", options.batch_size, recipe.batch_size, recipe.source, report
    )
    _tell_bands(recipe, epochs, len(source.classes), report)
    lr = _rate(options, recipe, len(source.classes), batch_size, report)
    autocast = autocast_of(options.precision, devices[0], report)
    asked = Asked(
        options.parallel,
        options.exchange,
        ranks,
        batch_size,
        exact=options.deterministic,
        by_layer=recipe.lars,
        autocast=autocast,
        pair=_pair(options, model, ranks),
    )
    placement = placed(asked, backbone.net, lambda: make().net, report)
    return Plan(
        backbone=backbone,
        source=source,
        holdout=rows,
        optimizer=make_optimizer(
            groups(backbone.net, recipe), weight_decay=recipe.weight_decay
        ),
        schedule=recipe.schedule(lr, epochs),
        epochs=epochs,
        batch_size=batch_size,
        threads=decode_threads(
            options.workers, ranks.local_world if placement.world > 1 else 1
        ),
        seed=options.seed,
        color=recipe.color,
        max_seconds=None if options.max_time is None else 60 * options.max_time,
        strict=options.strict,
        smoothing=recipe.smoothing,
        average=recipe.average,
        sides=recipe.sides,
        rescale=_lars(backbone.net, recipe) if recipe.lars else None,
        watch=watcher(recipe, len(source.classes), epochs),
        ten_view=recipe.views,
        autocast=autocast,
        placement=placement,
    )


def _network(
    model: str, seed: int, classes: int, devices: tuple[torch.device, ...]
) -> Backbone:
    made = load_backbone(model, "random", seed=seed, num_classes=classes)
    place(made.net, model, devices)
    # Before the optimiser: its buffers take the layout of their weights.
    made.net.to(memory_format=torch.channels_last)
    return made


def _pair(options: TrainOptions, model: str, ranks: Ranks) -> tuple[torch.device, ...]:
    """The first two devices of this machine, for a network of two towers that one process may
    come to train; empty where there are none, or the process has them anyway."""
    if ranks.alone or len(find_spec(model).empty().slots) < 2:
        return ()
    named = resolve_devices(options.device, silent, most=ranks.local_world)
    return named[:2] if len(named) > 1 else ()


def _devices(
    options: TrainOptions, model: str, ranks: Ranks, report: Reporter
) -> tuple[torch.device, ...]:
    """Of a process that shares the work one; else one for each tower, or one."""
    if not ranks.alone:
        named = devices_of_rank(options.device, ranks.local_rank, ranks.local_world, report)
        return named[:1]
    slots = len(find_spec(model).empty().slots)
    if options.parallel is Parallel.TOWERS and slots < 2:
        raise UsageError(
            f"--parallel towers is not for {model}: it has one tower",
            hint="use --model alexnet, or --parallel data",
        )
    most = 1 if options.parallel is Parallel.SINGLE else slots
    devices = resolve_devices(options.device, report, most=most)
    if options.parallel is Parallel.SINGLE and len(devices) > 1:
        raise UsageError(
            "--parallel single is of one device, and several were named",
            hint=f"use --device {devices[0]}, or another --parallel",
        )
    return devices


def _tell_choice(
    options: TrainOptions, name: str, model: str, recipe: Recipe, report: Reporter
) -> None:
    if options.model is None:
        asked = options.recipe or options.ablate or options.head is not Head.FC
        report(
            Chosen("network", model, "by the other words" if asked else "the default of train")
        )
    report(Chosen("recipe", name, f"of {model}" if options.recipe is None else "as asked"))
    for figure in (recipe.figure, recipe.ten_view):
        if figure is None:
            continue
        reached = f"{figure.top1:.1%} top-1, {figure.top5:.1%} top-5"
        views = "" if figure is recipe.figure else " of ten views"
        report(Chosen(f"reached on ImageNet{views}", reached, figure.where))


def _tell_bands(recipe: Recipe, epochs: int, classes: int, report: Reporter) -> None:
    told = told_bands(recipe, epochs)
    if classes == IMAGENET_CLASSES and told:
        report(Chosen("expected top-1", told, "a warning outside"))


def _rate(
    options: TrainOptions, recipe: Recipe, classes: int, batch_size: int, report: Reporter
) -> float:
    few = min(1.0, classes / recipe.full_rate_classes)
    scaled = recipe.lr * batch_size / recipe.batch_size * few
    rule = f"{recipe.lr:g} for a batch of {recipe.batch_size}"
    if few < 1:
        rule += f" and {recipe.full_rate_classes} classes or more"
    return settled("learning rate", options.lr, scaled, rule, report)


def chosen_recipe(options: TrainOptions) -> tuple[str, str, Recipe]:
    """As :func:`choose`, with the recipe for that network."""
    name, model = choose(options)
    recipe = recipe_for(name, model)
    if options.ablate is Ablate.NO_COLOR:
        recipe = replace(recipe, color=0.0, ten_view=None, end=None)
    return name, model, recipe


def choose(options: TrainOptions) -> tuple[str, str]:
    """The recipe and the network that the options name together.

    Raises:
        UnknownName: there is no such network.
        UsageError: the words do not go together.
    """
    model = options.model
    if model is not None:
        find_spec(model)
    named = None if options.recipe is None else options.recipe.value
    base = model or (RECIPES[named].models[0] if named else DEFAULT_MODEL)
    if options.head is Head.GAP:
        if base not in ("alexnet-bn", "alexnet-bn-gap"):
            raise UsageError(f"--head gap is not for {base}", hint="use --model alexnet-bn")
        base = "alexnet-bn-gap"
    if options.ablate is not None:
        if base != "alexnet":
            raise UsageError(
                f"--ablate {options.ablate.value} is not for {base}",
                hint="it takes something from the paper's network: --model alexnet",
            )
        if options.ablate is not Ablate.NO_COLOR:
            base = f"alexnet-{options.ablate.value}"
    if named == RecipeName.CODE_145.value and base == "alexnet":
        base = RECIPES[named].models[0]
    if named is not None and base not in RECIPES[named].models:
        raise UsageError(
            f"the recipe {named} is not for {base}",
            hint=f"it is for {', '.join(RECIPES[named].models)}",
        )
    return named or recipe_of(base), base


def groups(net: LayeredNet, recipe: Recipe) -> list[dict[str, Any]]:
    """All parameters as an optimiser takes them: weights, then biases and batch norm."""
    weights = [p for p in net.parameters() if p.ndim > 1]
    biases = [p for p in net.parameters() if p.ndim == 1]
    # LARS decays weights itself, inside the ratio.
    decay = {"weight_decay": 0.0} if recipe.lars else {}
    no_decay = {} if recipe.bias_decay else {"weight_decay": 0.0}
    return [
        {"name": "weights", "params": weights, **decay},
        {"name": "biases", "params": biases, "lr_multiplier": recipe.bias_rate, **no_decay},
    ]


def _lars(net: LayeredNet, recipe: Recipe) -> functools.partial[None]:
    weights = [p for p in net.parameters() if p.ndim > 1]
    return functools.partial(rescale, weights, weight_decay=recipe.weight_decay)
