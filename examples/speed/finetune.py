"""Time to an accuracy on one's own photos, beside a plain torch fine-tuning script.

    python examples/speed/finetune.py flowers/ --weights W.pth --target 0.85 --json F.json

Both begin at the same conv1 - conv5 and judge the same held-out photos, in one process, one
after the other, imports not counted. The plain script is the usual one: an ``ImageFolder``
subset behind a ``DataLoader`` with ``--workers`` processes, torchvision's transforms, frozen
convolutions, a new linear layer on pool5, SGD with momentum, every image decoded and run
through the network at every epoch.

Three figures:

- the default: alexkit's seconds, first run (the frozen part included) and second (its file is
  there), with the accuracy over ``--seeds`` divisions;
- ``--epochs`` epochs of a linear head: alexkit's seconds with the frozen part counted once,
  those of the plain script from ``--plain-epochs`` of them, and the ratio;
- the plain script's seconds to the target, or that it did not get there in these epochs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from measuring import keep, machine, usual
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import alexkit
from alexkit.events import silent
from alexkit.images.opening import open_source
from alexkit.models.weights import torchvision_names

LR = 0.0001
"""Of the plain script: the best of 0.01, 0.001 and 0.0001 on photos of flowers, and alexkit's
for a layer on pool5."""


def transforms(*, training: bool) -> v2.Compose:
    """torchvision's own, as its fine-tuning tutorial has them."""
    return usual(v2.RandomResizedCrop(224), v2.RandomHorizontalFlip()) if training else usual()


class Plain(nn.Module):
    """torchvision's AlexNet up to pool5, frozen, and a new linear layer."""

    def __init__(self, weights: Path, classes: int) -> None:
        super().__init__()
        backbone = alexkit.load_backbone(None, weights, seed=0)
        state = torchvision_names(backbone.net.canonical_state_dict())
        network = torchvision.models.alexnet()
        network.load_state_dict(state, strict=False)
        self.features = network.features.requires_grad_(False)
        self.head = nn.Linear(256 * 6 * 6, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).flatten(1))


def plain(
    data: Path, weights: Path, parts: tuple[list[int], list[int]], args: argparse.Namespace
) -> list[dict[str, float]]:
    """Seconds since the start and held-out accuracy after each epoch."""
    began = time.perf_counter()
    loaders = []
    for rows, training in zip(parts, (True, False), strict=True):
        photos = ImageFolder(str(data), transforms(training=training))
        loaders.append(
            DataLoader(
                Subset(photos, rows),
                batch_size=64,
                shuffle=training,
                num_workers=args.workers,
                persistent_workers=args.workers > 0,
            )
        )
    classes = len(ImageFolder(str(data)).classes)
    torch.manual_seed(0)
    net = Plain(weights, classes)
    optimizer = torch.optim.SGD(net.head.parameters(), lr=LR, momentum=0.9)
    told = []
    for _ in range(args.plain_epochs):
        net.train()
        for x, y in loaders[0]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        net.eval()
        with torch.inference_mode():
            right = sum(int((net(x).argmax(1) == y).sum()) for x, y in loaders[1])
        seconds = time.perf_counter() - began
        told.append({"seconds": seconds, "top1": right / len(parts[1])})
    return told


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures; runs happen in a folder that is removed."""
    data, weights = args.data.resolve(), args.weights.resolve()
    here = Path.cwd()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        os.chdir(scratch)
        try:
            default = _default(data, weights, args.seeds)
            head = _linear_head(data, weights, args.epochs)
            parts = _parts(data, Path("runs/finetune-001/split.csv"))
            script = plain(data, weights, parts, args)
        finally:
            os.chdir(here)
    an_epoch = statistics.median(
        np.diff([0.0, *(epoch["seconds"] for epoch in script)]).tolist()
    )
    reached = [e["seconds"] for e in script if e["top1"] >= args.target]
    return {
        "data": str(args.data),
        "machine": machine(),
        "default": default,
        "linear_head": head
        | {
            "plain_epoch_seconds": an_epoch,
            "plain_seconds": an_epoch * args.epochs,
            "times_less": an_epoch * args.epochs / head["seconds"],
        },
        "plain": {
            "epochs": script,
            "best": max(e["top1"] for e in script),
            "seconds_to_target": reached[0] if reached else None,
        },
    }


def _default(data: Path, weights: Path, seeds: int) -> dict[str, Any]:
    accuracies, seconds = [], []
    for seed in range(seeds):
        began = time.perf_counter()
        result = alexkit.finetune(data, weights=weights, seed=seed)
        seconds.append(time.perf_counter() - began)
        accuracies.append(result["top1"])
    return {
        "seconds_first": seconds[0],
        "seconds_then": statistics.median(seconds[1:]) if seeds > 1 else None,
        "top1": accuracies,
        "mean": statistics.mean(accuracies),
    }


def _linear_head(data: Path, weights: Path, epochs: int) -> dict[str, Any]:
    began = time.perf_counter()
    result = alexkit.finetune(
        data,
        weights=weights,
        freeze="conv5",
        augment="none",
        epochs=epochs,
        out=Path("head") / "run",  # a folder of its own: the frozen part is not there yet
    )
    return {
        "epochs": epochs,
        "seconds": time.perf_counter() - began,
        "seconds_in_steps": result["seconds"],
        "top1": result["top1"],
    }


def _parts(data: Path, split: Path) -> tuple[list[int], list[int]]:
    """Indices into torchvision's ``ImageFolder`` of what alexkit learnt from, and judged by."""
    judged = {
        str(data / line.split(",")[0])
        for line in split.read_text().splitlines()[1:]
        if line.endswith(",val")
    }
    paths = [path for path, _ in ImageFolder(str(data)).samples]
    rows = [path in judged for path in paths]
    return [i for i, j in enumerate(rows) if not j], [i for i, j in enumerate(rows) if j]


def show(result: dict[str, Any]) -> None:
    """The figures as sentences."""
    default, head, script = result["default"], result["linear_head"], result["plain"]
    then = default["seconds_then"]
    print(f"alexkit finetune: {default['mean']:.1%} over {len(default['top1'])} divisions,")
    print(
        f"  {default['seconds_first']:.1f} s the first time"
        + ("" if then is None else f", {then:.1f} s then")
    )
    print(
        f"{head['epochs']} epochs of a linear head: {head['seconds']:.1f} s, frozen part"
        f" included ({head['top1']:.1%}); the plain script {head['plain_seconds']:.0f} s,"
        f" {head['times_less']:.1f} times as long"
    )
    to_target = script["seconds_to_target"]
    reached = "not reached" if to_target is None else f"after {to_target:.0f} s"
    print(f"the plain script: best {script['best']:.1%}, the target {reached}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder of class folders")
    parser.add_argument("--weights", type=Path, required=True, help="of torchvision's AlexNet")
    parser.add_argument("--seeds", type=int, default=5, help="divisions of the photos")
    parser.add_argument("--epochs", type=int, default=30, help="of the linear head")
    parser.add_argument("--plain-epochs", type=int, default=5, help="of the plain script")
    parser.add_argument("--target", type=float, default=0.85, help="accuracy to reach")
    parser.add_argument("--workers", type=int, default=2, help="processes of its DataLoader")
    parser.add_argument("--scratch", type=Path, help="where runs go for a while")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    open_source(args.data, silent)  # an error before anything is measured
    result = measure(args)
    show(result)
    keep(result, args.json)


if __name__ == "__main__":
    main()
