"""How fast a network trains: synthetic images, each loader tier, against a plain torch loop.

    python examples/speed/training.py imagenet/ --batch-size 64 --json training.json

On a GPU, for the table of the README:

    python examples/speed/training.py imagenet/ --device cuda --images 20000 --steps 100 \
        --batch-size 256 --batch-size 1024 \
        --precision float32 --precision tf32 --precision bf16 --compile --json training.json

Every kind of run takes its turn in every round, and what counts is the median over rounds,
ratios being taken within a round. "plain" is what one writes by hand: torchvision's network,
images as NCHW, torch's SGD as it comes, on synthetic images; in a process of its own, as this
program changes how its own asks for memory. "synthetic" is this program's step
on images that are there already, so that no loader could be faster. The first steps of a turn,
in which buffers fill, are left out. The share of the peak is of what this device reaches in a
large matrix product of the same number type, counting twice the multiply-adds of the forward
pass and three times that for a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import plain_loop
import torch
from measuring import keep, machine
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from alexkit.choices import Keep, Precision
from alexkit.events import silent
from alexkit.images.batches import Batch
from alexkit.images.packed import PixelPack, open_pack
from alexkit.images.resident import ResidentPixels
from alexkit.recipes import pack
from alexkit.recipes.feed import Pixels
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.options import PackOptions, TrainOptions
from alexkit.recipes.plan import Plan
from alexkit.recipes.train import make_plan
from alexkit.training.loop import fit

FILLING = 2
"""Steps at the beginning of a turn that are not counted."""
IMAGENET = 1_281_167
EPOCHS = 90
Steps = Iterable[tuple[int, float, float]]
"""Images of a step, its seconds, and those of them spent waiting for images."""


def fitted(plan: Plan, net: nn.Module, batches: Any, prepare: Any) -> Steps:
    """Steps of this program's loop."""
    for step in fit(
        net,
        batches,
        plan.optimizer,
        prepare=prepare,
        loss_fn=plan.loss(),
        lr=lambda step: 1e-5,
        seed=0,
        autocast=plan.autocast,
    ):
        yield step.n, step.seconds, step.seconds_waiting


def synthetic(plan: Plan, net: nn.Module, x: Tensor, y: Tensor) -> Callable[[int], Steps]:
    x = x.contiguous(memory_format=torch.channels_last)
    return lambda steps: fitted(plan, net, range(steps), lambda _: (x, y))


def tier(plan: Plan) -> Callable[[int], Steps]:
    """Images as ``train`` reads and augments them, as often as it takes."""

    def turn(steps: int) -> Steps:
        feed = Pixels(plan, Ledger(None, strict=False, report=silent))
        rows = np.resize(plan.holdout.train, steps * plan.batch_size)
        batches, prepare = feed.learning(rows, 0)

        def labelled(batch: Batch) -> tuple[Tensor, Tensor]:
            x, y = prepare(batch)
            return x, y % len(plan.backbone.classes)

        yield from fitted(plan, plan.net, batches, labelled)

    return turn


def packs(plan: Plan, data: Path, folder: Path, images: int) -> dict[str, Plan]:
    """The same plan on each tier that this machine has."""
    source = plan.source
    some = np.random.default_rng(0).permutation(plan.holdout.train)[:images]
    plan = dataclasses.replace(
        plan, holdout=dataclasses.replace(plan.holdout, train=np.sort(some))
    )
    if isinstance(source, PixelPack):
        plans = {"raw pack": plan}
    else:
        plans = {"originals": plan}
        for name, keep in (("JPEG pack", Keep.JPEG), ("raw pack", Keep.PIXELS)):
            out = folder / f"{keep.value}.pack"
            pack.run(PackOptions(data=data, out=out, keep=keep), silent)
            plans[name] = dataclasses.replace(plan, source=open_pack(out))
    device = plan.backbone.net.slots[0]
    raw = plans["raw pack"].source
    if device.type == "cuda" and isinstance(raw, PixelPack):
        resident = ResidentPixels(raw, device)
        plans["GPU memory"] = dataclasses.replace(plans["raw pack"], resident=resident)
    return plans


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations a second in a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = 0.0
    for _ in range(6):
        began = time.perf_counter()
        float((a @ a)[0, 0])  # waits for the device
        best = max(best, 2 * side**3 / (time.perf_counter() - began))
    return best


def forward_flops(plan: Plan) -> float:
    """Floating point operations of one image's forward pass."""
    net = plan.backbone.net
    x = torch.zeros(1, 3, plan.backbone.preprocess.crop, plan.backbone.preprocess.crop)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(x.to(net.slots[0]))
    return float(counter.get_total_flops())


def turns(kinds: dict[str, Callable[[int], Steps]], rounds: int, steps: int) -> dict[str, Any]:
    """Images a second and the share of waiting, of each kind in each round."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for turn in kinds.values():
        list(turn(1))  # kernels are chosen, or compiled
    for _ in range(rounds):
        for name, turn in kinds.items():
            counted = list(turn(FILLING + steps))[FILLING:]
            images, seconds, waiting = (sum(column) for column in zip(*counted, strict=True))
            found[name].append((images / seconds, waiting / seconds))
    return {
        name: {
            "images_per_second": statistics.median(rate for rate, _ in rounds_of),
            "waiting": statistics.median(waiting for _, waiting in rounds_of),
            "rounds": [rate for rate, _ in rounds_of],
        }
        for name, rounds_of in found.items()
    }


def measure(args: argparse.Namespace, batch_size: int, precision: Precision) -> dict[str, Any]:
    options = TrainOptions(
        data=args.data,
        model=args.model,
        batch_size=batch_size,
        workers=args.workers,
        device=args.device,
        precision=precision,
    )
    plan = make_plan(options, silent)
    net, device = plan.backbone.net, plan.backbone.net.slots[0]
    crop = plan.backbone.preprocess.crop
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, 3, crop, crop, generator=generator)
    y = torch.randint(len(plan.backbone.classes), (batch_size,), generator=generator)
    dtype = plan.autocast or torch.float32
    peak, work = peak_flops(device, dtype), 3 * forward_flops(plan)
    own = ProcessPoolExecutor(1, get_context("spawn"), plain_loop.begin, (str(device), x, y))
    x, y = x.to(device), y.to(device)
    kinds: dict[str, Callable[[int], Steps]] = {
        "plain": lambda steps: own.submit(plain_loop.turn, steps).result(),
        "synthetic": synthetic(plan, net, x, y),
    }
    if args.compile:
        kinds["synthetic, compiled"] = synthetic(plan, torch.compile(net), x, y)
    with own, tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        for name, on in packs(plan, args.data, Path(scratch), args.images).items():
            kinds[name] = tier(on)
        found = turns(kinds, args.rounds, args.steps)
    base = found["plain"]["rounds"]
    for kind in found.values():
        pairs = zip(kind["rounds"], base, strict=True)
        kind["times_plain"] = statistics.median(rate / other for rate, other in pairs)
        kind["share_of_peak"] = kind["images_per_second"] * work / peak
        kind["hours_for_90_epochs"] = IMAGENET * EPOCHS / kind["images_per_second"] / 3600
    return {
        "batch_size": batch_size,
        "precision": precision.value,
        "peak_flops": peak,
        "flops_an_image": work,
        "kinds": found,
    }


def show(result: dict[str, Any]) -> None:
    device = result["machine"]["device"]
    for run in result["runs"]:
        print(
            f"\n{result['settings']['model']}, batch {run['batch_size']}, {run['precision']}, "
            f"{device}; peak {run['peak_flops'] / 1e12:.2f} TFLOP/s"
        )
        head = ("images/s", "× plain", "of peak", "waiting", "h/90 epochs")
        print(f"{'':22}" + "".join(f"{word:>12}" for word in head))
        for name, kind in run["kinds"].items():
            print(
                f"{name:22}{kind['images_per_second']:12,.1f}{kind['times_plain']:12.2f}"
                f"{kind['share_of_peak']:12.1%}{kind['waiting']:12.1%}"
                f"{kind['hours_for_90_epochs']:12,.1f}"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder, list or pack of labelled images")
    parser.add_argument(
        "--model", default="alexnet-owt", help="plain has torchvision's network"
    )
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, action="append", help="repeat for more (64)")
    parser.add_argument("--precision", type=Precision, action="append", help="repeat for more")
    parser.add_argument("--images", type=int, default=1000, help="how many of them, at most")
    parser.add_argument("--steps", type=int, default=6, help="counted, a turn")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--workers", type=int, help="decode threads")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    parser.add_argument("--scratch", type=Path, help="where packs go for a while")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    runs = [
        measure(args, batch_size, precision)
        for precision in args.precision or [Precision.FLOAT32]
        for batch_size in args.batch_size or [64]
    ]
    result = {
        "machine": machine(args.device),
        "settings": {name: str(value) for name, value in vars(args).items()},
        "runs": runs,
    }
    show(result)
    keep(result, args.json)


if __name__ == "__main__":
    main()
