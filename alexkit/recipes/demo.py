"""The four commands on handwritten digits that ship with scikit-learn: no network needed.

Digits 0 to 4 stand for ImageNet, digits 5 to 9 for one's own photos: a network is trained
on the first five, its layers are taken for the second five, and it is fine-tuned to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from alexkit.events import Note, Reporter
from alexkit.recipes import evaluate, features, finetune, train
from alexkit.recipes.inputs import FEATURES_FILE
from alexkit.recipes.options import (
    DemoOptions,
    EvalOptions,
    FeaturesOptions,
    FinetuneOptions,
    SharedOptions,
    TrainOptions,
)
from alexkit.recipes.run_dir import Remembering, RunDir
from alexkit.reports.tables import percent

MODEL = "alexnet-bn"
LAYER = "pool5"
EPOCHS = {"train": 8, "finetune": 6}
BATCH_SIZE = 32
"""So few that all of it takes about three minutes on two cores."""
PER_CLASS = {"train": 40, "val": 20}
SIDE = 64  # pixels; a digit is 8 × 8 grey levels from 0 to 16
CAUTION = (
    "These weights saw 200 small digits for seconds: they show that everything works, and are "
    "no ImageNet weights."
)


def write_digits(folder: Path, digits: range) -> Path:
    """Writes ``train/`` and ``val/`` folders of PNG files, one class folder a digit."""
    data = load_digits()
    for digit in digits:
        images = data.images[data.target == digit]
        start = 0
        for split, count in PER_CLASS.items():
            place = folder / split / f"digit-{digit}"
            place.mkdir(parents=True, exist_ok=True)
            for i in range(start, start + count):
                grey = Image.fromarray((images[i] * (255 / 16)).round().astype(np.uint8))
                grey.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{i:03d}.png")
            start += count
    return folder


def run(options: DemoOptions, report: Reporter) -> dict[str, Any]:
    """Runs the four commands one after the other, each into a folder of its own.

    Returns ``{"steps": [{"step", "what", "figure", "seconds", "out"}], "caution"}``.
    """
    report = Remembering(report)
    steps: list[dict[str, Any]] = []
    with RunDir.open("demo", options, report) as folder:
        report(Note(f"{MODEL} is used here: it learns in seconds what takes alexnet hours"))
        for step in _four_steps(options, folder.path):
            report(Note(f"alexkit {step.name}: {step.what}"))
            began = time.monotonic()
            figure = step.figure(step.run(step.options, report))
            told = {"step": step.name, "what": step.what, "figure": figure}
            seconds = time.monotonic() - began
            steps.append({**told, "seconds": seconds, "out": str(step.options.out)})
        result = {"steps": steps, "caution": CAUTION}
        folder.finish(result)
    return result


class _Step(NamedTuple):
    """A command, its options, and the figure that tells what came of it."""

    name: str
    what: str
    run: Callable[[Any, Reporter], dict[str, Any]]
    options: SharedOptions
    figure: Callable[[dict[str, Any]], str]


def _four_steps(options: DemoOptions, root: Path) -> tuple[_Step, ...]:
    first = write_digits(root / "digits-0-4", range(5))
    second = write_digits(root / "digits-5-9", range(5, 10))
    shared: dict[str, Any] = {
        "device": options.device,
        "workers": options.workers,
        "seed": options.seed,
        "overwrite": True,
    }
    fit: dict[str, Any] = {**shared, "batch_size": BATCH_SIZE}
    outs = {name: root / name for name in ("train", "features", "finetune", "eval")}
    weights, file = str(outs["train"]), outs["features"] / FEATURES_FILE
    trained = TrainOptions(
        data=first, model=MODEL, epochs=EPOCHS["train"], out=outs["train"], **fit
    )
    extracted = FeaturesOptions(
        data=second, layer=(LAYER,), weights=weights, out=outs["features"], **shared
    )
    tuned = FinetuneOptions(
        data=second, weights=weights, epochs=EPOCHS["finetune"], out=outs["finetune"], **fit
    )
    judged = EvalOptions(files=(file,), out=outs["eval"], **shared)

    def top1(result: dict[str, Any]) -> str:
        return percent(result["top1"])

    return (
        _Step("train", f"{MODEL} on digits 0 to 4", train.run, trained, top1),
        _Step(
            "features",
            f"{LAYER} of digits 5 to 9",
            features.run,
            extracted,
            lambda result: f"{result['rows']} rows",
        ),
        _Step("finetune", "from those weights to digits 5 to 9", finetune.run, tuned, top1),
        _Step(
            "eval",
            f"linear SVM on {LAYER}",
            evaluate.run,
            judged,
            lambda result: percent(result["results"][0]["accuracy"]["mean"]),
        ),
    )
