"""The four commands on handwritten digits that ship with scikit-learn: no network needed.

Digits 0 to 4 stand for ImageNet, digits 5 to 9 for one's own photos: a network is trained
on the first five, its layers are taken for the second five, and it is fine-tuned to them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    TrainOptions,
)
from alexkit.recipes.run_dir import Remembering, RunDir
from alexkit.reports.tables import percent

MODEL = "alexnet-bn"
LAYER = "pool5"
EPOCHS = {"train": 8, "finetune": 6}
BATCH_SIZE = 32
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
        root = folder.path
        first = write_digits(root / "digits-0-4", range(5))
        second = write_digits(root / "digits-5-9", range(5, 10))
        report(Note(f"{MODEL} is used here: it learns in seconds what takes alexnet hours"))

        def step(
            name: str, what: str, figure: Callable[[Any], str], call: Callable[[], Any]
        ) -> None:
            report(Note(f"alexkit {name}: {what}"))
            began = time.monotonic()
            result = call()
            told = {"step": name, "what": what, "figure": figure(result)}
            steps.append({**told, "seconds": time.monotonic() - began, "out": str(root / name)})

        _four_steps(step, options, report, root, first, second)
        result = {"steps": steps, "caution": CAUTION}
        folder.finish(result)
    return result


def _four_steps(
    step: Callable[[str, str, Callable[[Any], str], Callable[[], Any]], None],
    options: DemoOptions,
    report: Reporter,
    root: Path,
    first: Path,
    second: Path,
) -> None:
    shared: dict[str, Any] = {
        "device": options.device,
        "workers": options.workers,
        "seed": options.seed,
        "overwrite": True,
    }
    fit: dict[str, Any] = {**shared, "batch_size": BATCH_SIZE}
    weights = str(root / "train")

    def top1(result: dict[str, Any]) -> str:
        return percent(result["top1"])

    step(
        "train",
        f"{MODEL} on digits 0 to 4",
        top1,
        lambda: train.run(
            TrainOptions(
                data=first, model=MODEL, epochs=EPOCHS["train"], out=root / "train", **fit
            ),
            report,
        ),
    )
    step(
        "features",
        f"{LAYER} of digits 5 to 9",
        lambda result: f"{result['rows']} rows",
        lambda: features.run(
            FeaturesOptions(
                data=second, layer=(LAYER,), weights=weights, out=root / "features", **shared
            ),
            report,
        ),
    )
    step(
        "finetune",
        "from those weights to digits 5 to 9",
        top1,
        lambda: finetune.run(
            FinetuneOptions(
                data=second,
                weights=weights,
                epochs=EPOCHS["finetune"],
                out=root / "finetune",
                **fit,
            ),
            report,
        ),
    )
    step(
        "eval",
        f"linear SVM on {LAYER}",
        lambda result: percent(result["results"][0]["accuracy"]["mean"]),
        lambda: evaluate.run(
            EvalOptions(
                files=(root / "features" / FEATURES_FILE,), out=root / "eval", **shared
            ),
            report,
        ),
    )
