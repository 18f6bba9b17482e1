"""Pages made without a run: names that bite, and as many classes and images as ImageNet has."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

from alexkit.reports.eval_page import HARDEST, EvalFacts, eval_page
from alexkit.reports.fit_page import WORST, FitFacts, fit_page
from alexkit.reports.page import Page

BITING = (
    "plain.jpg",
    'it\'s "quoted".jpg',
    "<script>document.title='run'</script>.jpg",
    "<img src=x onerror=\"document.title='run'\">.jpg",
    "</script><script>document.title='run'</script>.jpg",
    "two\nlines\tand a tab.jpg",
    "👩‍🔬😀 ünï 花.jpg",
    "not utf-8 \udcff.jpg",
    "&amp; {{ 7*7 }} ${7*7}.jpg",
    "right \u202egpj.exe",
)
CLASSES = ("a <b>bold</b> class", 'the "other" & class', "third\nclass 😀")


def jpeg() -> str:
    """A thumbnail of noise as a data URI: larger than those of photos are."""
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def record(command: str, classes: list[str]) -> dict[str, Any]:
    """A ``run.json`` of a finished run."""
    return {
        "command": command,
        "command_line": [command, BITING[2]],
        "options": {"data": BITING[1], "epochs": 3, "layer": ["fc7"], "strict": False},
        "derived": {"batch size": {"value": "64", "rule": BITING[3]}},
        "versions": {"alexkit": "0.1.0", "torch": "2.6.0"},
        "state": "done",
        "started": "2012-09-30T10:00:00+00:00",
        "ended": "2012-10-06T10:00:00+00:00",
        "data": {"root": BITING[2], "kind": "folder", "classes": classes},
        "result": {
            "top1": 0.6, "top5": 0.8, "n": 90, "split": "val", "best_epoch": 2, "epochs": 3,
            "model": "alexnet", "train_images": 300, "seconds": 518400.0,
        },
    }  # fmt: skip


def metrics(epochs: int) -> list[dict[str, float]]:
    """Rows of a ``metrics.csv``."""
    names = ("lr", "train_loss", "train_top1", "loss", "top1", "top5")
    return [
        {"epoch": e, **{name: 1 / (1 + e + i) for i, name in enumerate(names)}}
        for e in range(1, epochs + 1)
    ]


def fit_sample(classes: list[str], paths: list[str], *, epochs: int = 3) -> Page:
    """A fit that got two in five right; each mistake shown has a photo of its own."""
    rng = np.random.default_rng(0)
    lines = []
    for i, path in enumerate(paths):
        true = i % len(classes)
        taken = true if i % 5 < 2 else int(rng.integers(len(classes)))
        p = rng.uniform(0, 0.4)
        lines.append({
            "path": path, "class": classes[true], "predicted": classes[taken],
            "p_class": f"{p:.6g}", "p_predicted": f"{p + 0.5:.6g}", "top5": str(i % 2),
        })  # fmt: skip
    return fit_page(
        FitFacts(
            "runs/" + BITING[1],
            record("train", classes),
            metrics(epochs),
            lines,
            [[name, "the file is empty", "left out"] for name in BITING] * 40,
            dict.fromkeys(paths, jpeg()),
            dict.fromkeys(classes, 100),
        )
    )


def eval_sample(classes: list[str], paths: list[str], layers: tuple[str, ...]) -> Page:
    """An ``eval`` of several layers over the shots of a learning curve."""
    rng = np.random.default_rng(0)
    k = len(classes)
    results = []
    for shots in (1, 5, 30):
        for i, layer in enumerate(layers):
            mean = 0.3 + 0.05 * i + 0.01 * shots
            score = {"mean": mean, "std": 0.02}
            results.append({
                "file": "F.h5", "layer": layer, "shots": shots, "C": 0.1, "splits": 5,
                "n_train": shots * k, "n_test": len(paths), "accuracy": score,
                "mean_class_accuracy": score, "top5": score,
                "map": {"area": score, "eleven_point": score},
                "per_class": {name: rng.uniform() for name in classes},
                "cv": [{"C": c, "score": mean - c, "chosen": 1} for c in (0.01, 0.1)],
                "objective_gap": 1e-7, "seconds": 2.0,
                "leaks": {"identical": 0, "near": 1, "cosine": 0.99, "pairs": []},
                "confusion": (rng.integers(0, 40, (k, k)) * (rng.uniform(size=(k, k)) < 0.05)
                              + 30 * np.eye(k, dtype=np.int64)).tolist(),
            })  # fmt: skip
    told = {
        "protocol": {
            "name": "few-shot", "probe": "svm", "norm": "l2",
            "published": [{"name": "DeCAF 2014", "percent": {layers[-1]: [86.9, None]}}],
        },
        "results": results,
        "comparisons": [],
        "predictions": {"file": "F.h5", "layer": layers[-1]},
    }  # fmt: skip
    lines = [
        {
            "path": path, "class": classes[i % k], "predicted": classes[(i + 1) % k],
            "margin": f"{-i / 7:.6g}", "right": "1", "tested": "5",
        }
        for i, path in enumerate(paths)
    ]  # fmt: skip
    photos = dict.fromkeys(paths[-HARDEST:], jpeg())
    return eval_page(EvalFacts("eval-001", record("eval", classes), told, lines, photos))


def imagenet_like(kind: str) -> Page:
    """A page of 1,000 classes and 50,000 images."""
    classes = [f"n{k:08d} {'a kind of thing, ' * 2}{k}" for k in range(1000)]
    paths = [f"val/ILSVRC2012_val_{i:08d}.JPEG" for i in range(50_000)]
    if kind == "fit":
        return fit_sample(classes, paths, epochs=90)
    layers = ("conv1", "conv2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7")
    return eval_sample(classes, paths, layers)


assert len(BITING) <= WORST, "every name that bites is shown"
