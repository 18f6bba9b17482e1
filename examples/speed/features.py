"""How fast fc7 is extracted: whole commands and their steady state, a plain script, the floor.

    python examples/speed/features.py photos/ --images 1000 --json features.json

In every round `alexkit features` and a plain torchvision script (a DataLoader, its network,
h5py) each run as a process of their own on the same photos, and what counts is the median over
rounds, ratios being taken within a round. The steady state leaves out the start and the first
fifth of the images. The floor is what no program could beat on these cores with these parts:
the fastest forward pass of the bare network on random numbers, and the core-time of decoding
and resizing each photo. Weights are random: they cost as much as trained ones.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from joblib import cpu_count
from measuring import PREPROCESS, Photos, keep, machine
from torch.utils.data import DataLoader
from torchvision.models import alexnet

from alexkit.errors import UnreadableImage
from alexkit.images.decode import decode
from alexkit.images.opening import open_source
from alexkit.models.zoo import load_backbone

MODEL, LAYER = "alexnet-owt", "fc7"
SCRIPT_BATCH = 64
SKIPPED = 0.2
"""Share of the images that are read before the steady state is taken to begin."""


PROGRESS = {"event": "stage_advanced", "stage": "features"}
"""The line that both tools write after a batch, with how many images are done."""


def script(folder: Path, out: Path, workers: int) -> None:
    """What one writes by hand; tells how many images are done after each batch."""
    net = alexnet(weights=None).eval()
    net.classifier = net.classifier[:-1]
    photos = Photos(sorted(folder.iterdir()))
    found, done = [], 0
    with torch.inference_mode():
        for x in DataLoader(photos, SCRIPT_BATCH, num_workers=workers):
            found.append(net(x).numpy())
            done += len(x)
            print(json.dumps(PROGRESS | {"done": done}), flush=True)
    with h5py.File(out, "w") as file:
        file["fc7"] = np.concatenate(found)
        file["path"] = [path.name for path in photos.paths]


@dataclass(frozen=True)
class Run:
    """One process from start to end.

    Attributes:
        seconds: of the whole command.
        steady: images a second after the first :data:`SKIPPED` of them.
        core_ms: processor time an image, the start included.
        peak_mb: the most memory it and its workers had at once is at least this: the largest
            of its processes.
    """

    seconds: float
    steady: float
    core_ms: float
    peak_mb: float


def timed(words: list[str], images: int) -> Run:
    """Runs a command that writes one JSON line an event and times its lines."""
    began = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    marks: list[tuple[int, float]] = []
    for line in process.stdout:
        event = json.loads(line)
        if (
            event.get("event") == "stage_advanced"
            and event.get("stage", "features") == "features"
        ):
            marks.append((event["done"], time.perf_counter()))
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(words)} failed")
    first = next(mark for mark in marks if mark[0] >= SKIPPED * images)
    done, elapsed = (last - begin for last, begin in zip(marks[-1], first, strict=True))
    return Run(
        seconds,
        done / elapsed,
        1000 * (usage.ru_utime + usage.ru_stime) / images,
        usage.ru_maxrss / 1024,
    )


def forward_rate(batch_size: int, streams: int, threads: int, seconds: float) -> float:
    """Images/s of the bare network, ``streams`` at once with ``threads`` each."""
    net = load_backbone(MODEL, weights="random", seed=0).net.eval()
    x = torch.randn(batch_size, 3, PREPROCESS.crop, PREPROCESS.crop)
    x = x.contiguous(memory_format=torch.channels_last)
    rates = [0.0] * streams
    ready = threading.Barrier(streams)

    def work(stream: int) -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            net.taps(x, [LAYER])
            ready.wait()
            began, done = time.perf_counter(), 0
            while time.perf_counter() - began < seconds:
                net.taps(x, [LAYER])
                done += batch_size
            rates[stream] = done / (time.perf_counter() - began)

    workers = [threading.Thread(target=work, args=(stream,)) for stream in range(streams)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(rates)


def loading_core_ms(folder: Path) -> float:
    """Core-milliseconds of decoding and resizing a photo."""
    source = open_source(folder)
    data = [source.read(row) for row in range(len(source))]
    began = time.thread_time()
    for one in data:
        PREPROCESS.square(decode(one, exif=False).rgb)
    return 1000 * (time.thread_time() - began) / len(data)


def collect(data: Path, folder: Path, images: int) -> None:
    """As many readable photos, copied as often as it takes."""
    source, found = open_source(data), []
    for row in range(min(len(source), images)):
        try:
            decode(source.read(row), exif=False)
        except UnreadableImage:
            continue
        found.append(source.read(row))
    if not found:
        raise SystemExit(f"{data} holds no photo that can be read")
    folder.mkdir()
    for number in range(images):
        (folder / f"{number:06}.jpg").write_bytes(found[number % len(found)])


def commands(scratch: Path, photos: Path, workers: int) -> dict[str, Callable[[], list[str]]]:
    """Each tool's words for a fresh output."""

    def fresh(name: str) -> str:
        for old in scratch.glob(f"{name}*"):
            old.unlink()
        return str(scratch / name)

    program = [
        sys.executable,
        "-c",
        "from alexkit.cli.app import program; program()",
        "features",
    ]
    ours = [*program, str(photos), "--weights", "random", "--model", MODEL, "--layer", LAYER]
    baseline = [sys.executable, __file__, "--script", str(photos), "--workers", str(workers)]
    return {
        "alexkit": lambda: [*ours, "--json", "--out", fresh("ours.h5")],
        "script": lambda: [*baseline, "--out", fresh("script.h5")],
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    cores = cpu_count()
    with tempfile.TemporaryDirectory(dir=args.scratch) as name:
        scratch = Path(name)
        photos = scratch / "photos"
        collect(args.data, photos, args.images)
        rounds: list[dict[str, Run]] = []
        for _ in range(args.rounds):
            each = commands(scratch, photos, args.workers)
            rounds.append({name: timed(words(), args.images) for name, words in each.items()})
        splits = [(1, cores), (cores, 1)]
        forward = {
            f"{streams} x {threads} threads, batches of {size}": forward_rate(
                size, streams, threads, args.seconds
            )
            for streams, threads in splits
            for size in (32, 64, 128)
        }
        loading = statistics.median(loading_core_ms(photos) for _ in range(3))
        shutil.rmtree(photos)
    floor = 1 / (1 / max(forward.values()) + loading / 1000 / cores)
    return summary(args, rounds, forward, loading, floor)


def summary(
    args: argparse.Namespace,
    rounds: list[dict[str, Run]],
    forward: dict[str, float],
    loading: float,
    floor: float,
) -> dict[str, Any]:
    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    tools = {
        name: {
            "seconds": median(r[name].seconds for r in rounds),
            "steady_images_per_second": median(r[name].steady for r in rounds),
            "core_ms_an_image": median(r[name].core_ms for r in rounds),
            "peak_mb": median(r[name].peak_mb for r in rounds),
        }
        for name in rounds[0]
    }
    return {
        "machine": machine(),
        "settings": {"images": args.images, "rounds": args.rounds, "workers": args.workers},
        "tools": tools,
        "forward_images_per_second": forward,
        "decode_and_resize_core_ms": loading,
        "floor_images_per_second": floor,
        "steady_over_floor": median(r["alexkit"].steady for r in rounds) / floor,
        "steady_over_script": median(r["alexkit"].steady / r["script"].steady for r in rounds),
        "whole_over_script": median(r["script"].seconds / r["alexkit"].seconds for r in rounds),
    }


def show(result: dict[str, Any]) -> None:
    head = ("", "s in all", "images/s", "core-ms", "peak MB")
    print(f"{head[0]:10}" + "".join(f"{word:>12}" for word in head[1:]))
    for name, tool in result["tools"].items():
        print(f"{name:10}" + "".join(f"{value:12.1f}" for value in tool.values()))
    print("\nthe bare network, images/s")
    for name, rate in result["forward_images_per_second"].items():
        print(f"  {name:36}{rate:8.1f}")
    print(f"decode and resize: {result['decode_and_resize_core_ms']:.2f} core-ms an image")
    print(f"floor: {result['floor_images_per_second']:.1f} images/s")
    print(f"steady state over the floor: {result['steady_over_floor']:.2f}")
    print(f"steady state over the script's: {result['steady_over_script']:.2f}")
    print(f"whole command over the script's: {result['whole_over_script']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder or list of photos")
    parser.add_argument("--images", type=int, default=1000, help="how many to extract")
    parser.add_argument("--rounds", type=int, default=3, help="medians are over these")
    parser.add_argument("--workers", type=int, default=2, help="the script's processes")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each forward rate")
    parser.add_argument("--scratch", type=Path, help="where photos and files go for a while")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--script", action="store_true", help="be the plain script")
    parser.add_argument("--out", type=Path, help="the plain script's file")
    args = parser.parse_args()
    if args.script:
        script(args.data, args.out, args.workers)
        return
    result = measure(args)
    show(result)
    keep(result, args.json)


if __name__ == "__main__":
    main()
