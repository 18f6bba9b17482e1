"""How fast images become batches: each stage alone, each tier as a whole, beside a DataLoader.

    python examples/speed/loading.py mydata/ --json loading.json

The stages, and the whole pipeline of originals, are told in core-time, milliseconds an image:
what the threads computed, without what they waited. The pipeline is compared with the decoding
and resizing it does itself, measured in the same pass: two cores at work share caches, so both
take longer there than alone. The tiers run with ``--workers`` threads
each, the DataLoader with as many processes and torchvision's own v2 transforms. All take
turns in every round, and what counts is the median over rounds, ratios being taken within a
round, so that a machine with other work to do slows both sides of a ratio.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import PREPROCESS, Photos, keep, machine
from torch.utils.data import DataLoader

from alexkit.choices import Keep
from alexkit.errors import UnreadableImage
from alexkit.events import silent
from alexkit.images.batches import ToSquare, read_batches
from alexkit.images.decode import Decoded, decode
from alexkit.images.files import FileSource
from alexkit.images.opening import open_source
from alexkit.images.packed import open_pack
from alexkit.images.source import ImageSource
from alexkit.recipes import pack
from alexkit.recipes.options import PackOptions

BASELINE = "DataLoader"


class InMemory:
    """Decoded squares in one array: the most any storage could give."""

    kind = "memory"
    root = ""
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __init__(self, source: ImageSource, squares: np.ndarray) -> None:
        self.labels, self.splits = source.labels, source.splits
        self.record, self.read = source.record, source.read
        self.fingerprint = source.fingerprint
        self.squares, self.side = squares, squares.shape[1]

    def __len__(self) -> int:
        return len(self.squares)

    def decoded(self, row: int) -> Decoded:
        return Decoded(self.squares[row], "")

    def plain(self, rows: np.ndarray) -> np.ndarray:
        return np.ones(len(rows), bool)

    def copy(self, rows: np.ndarray, top: int, left: int, out_nhwc: np.ndarray) -> None:
        side = out_nhwc.shape[1]
        for square, row in zip(out_nhwc, rows.tolist(), strict=True):
            np.copyto(square, self.squares[row, top : top + side, left : left + side])


class Stopwatch:
    """A source that adds up the core-time of its own decoding, and of resizing, in seconds."""

    def __init__(self, source: FileSource) -> None:
        self.kind, self.root, self.notes = source.kind, source.root, source.notes
        self.classes, self.labels, self.splits = source.classes, source.labels, source.splits
        self.record, self.read = source.record, source.read
        self.fingerprint = source.fingerprint
        self.seconds: deque[float] = deque()  # appending is safe from several threads

    def __len__(self) -> int:
        return len(self.labels)

    def decoded(self, row: int) -> Decoded:
        data = self.read(row)
        began = time.thread_time()
        image = decode(data, exif=False)
        self.seconds.append(time.thread_time() - began)
        return image

    def square(self, rgb: np.ndarray) -> np.ndarray:
        began = time.thread_time()
        square = PREPROCESS.square(rgb)
        self.seconds.append(time.thread_time() - began)
        return square


def readable(source: FileSource, images: int) -> np.ndarray:
    """The first rows that can be decoded, at most ``images`` of them."""
    rows: list[int] = []
    for row in range(len(source)):
        try:
            decode(source.read(row), exif=False)
        except UnreadableImage:
            continue
        rows.append(row)
        if len(rows) == images:
            break
    return np.array(rows)


def stages(source: ImageSource, rows: np.ndarray, device: torch.device) -> dict[str, float]:
    """Core-milliseconds an image of each stage, one thread, one pass."""
    out = torch.empty((len(rows), PREPROCESS.crop, PREPROCESS.crop, 3), dtype=torch.uint8)
    slots, spent = out.numpy(), dict.fromkeys(("read", "decode", "resize", "batch"), 0.0)
    for slot, row in enumerate(rows.tolist()):
        marks = [time.thread_time()]
        data = source.read(row)
        marks.append(time.thread_time())
        rgb = decode(data, exif=False).rgb
        marks.append(time.thread_time())
        square = PREPROCESS.square(rgb)
        marks.append(time.thread_time())
        slots[slot] = square
        marks.append(time.thread_time())
        for name, begin, end in zip(spent, marks, marks[1:], strict=False):
            spent[name] += end - begin
    began = time.process_time()
    on_device = out.to(device)
    float(PREPROCESS.normalise(on_device)[-1].sum())  # waits for the device
    spent["to device and normalise"] = time.process_time() - began
    return {name: 1000 * seconds / len(rows) for name, seconds in spent.items()}


def ours(
    source: ImageSource,
    rows: np.ndarray,
    args: argparse.Namespace,
    *,
    normalise: bool,
    to_square: ToSquare = PREPROCESS.square,
) -> Callable[[], Iterator[torch.Tensor]]:
    """Passes over ``source`` that yield uint8 batches, or float32 ones like the baseline's."""

    def batches() -> Iterator[torch.Tensor]:
        for batch in read_batches(
            source,
            rows,
            to_square,
            batch_size=args.batch_size,
            threads=args.workers,
            exif=False,
        ):
            yield PREPROCESS.normalise(batch.pixels) if normalise else batch.pixels

    return batches


def images_per_second(batches: Callable[[], Iterator[torch.Tensor]], passes: int) -> float:
    """Over as many passes as make a time worth measuring."""
    began, done = time.perf_counter(), 0
    for _ in range(passes):
        for batch in batches():
            done += len(batch)
    return done / (time.perf_counter() - began)


def resident_mb() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(args: argparse.Namespace) -> dict[str, Any]:
    source = open_source(args.data)
    if not isinstance(source, FileSource):
        raise SystemExit("name a folder or a list: the DataLoader reads files")
    rows = readable(source, args.images)
    paths = [os.path.join(source.place, source.paths[row]) for row in rows]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader = DataLoader(
        Photos(paths), args.batch_size, num_workers=args.workers, persistent_workers=True
    )
    first = next(iter(loader))  # starts the processes, before there are threads to fork
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        packed = Path(scratch) / "images.pack"
        listing = Path(scratch) / "images.csv"
        listing.write_text("".join(f'"{path}"\n' for path in paths))
        pack.run(PackOptions(data=listing, out=packed), silent)
        small = Path(scratch) / "small.pack"
        pack.run(PackOptions(data=listing, out=small, keep=Keep.JPEG), silent)
        tiers: dict[str, Any] = {
            BASELINE: (lambda: iter(loader), 1),
            "originals, normalised": (ours(source, rows, args, normalise=True), 1),
            "originals": (ours(source, rows, args, normalise=False), 1),
        }
        everything = np.arange(len(rows))
        jpegs = ours(open_pack(small), everything, args, normalise=False)
        tiers["JPEG pack"] = (jpegs, args.fast_passes)
        stored = open_pack(packed)
        sizes = {"originals": sum(map(os.path.getsize, paths)) / len(rows)}
        for name, path in (("JPEG pack", small), ("raw pack", packed)):
            sizes[name] = path.stat().st_size / len(rows)
        squares = np.stack([stored.decoded(row).rgb for row in range(len(rows))])
        for name, ready in (("raw pack", stored), ("in memory", InMemory(stored, squares))):
            tiers[name] = (ours(ready, everything, args, normalise=False), args.fast_passes)
        apart = first - next(tiers["originals, normalised"][0]())
        for passes, _ in tiers.values():
            images_per_second(passes, 1)  # warm-up
        rounds: list[dict[str, float]] = []
        split: list[dict[str, float]] = []
        memory: list[float] = []
        for _ in range(args.rounds):
            split.append(stages(source, rows, device))
            timed = Stopwatch(source)
            began = time.process_time()
            images_per_second(
                ours(timed, rows, args, normalise=False, to_square=timed.square), 1
            )
            split[-1]["whole pipeline"] = 1000 * (time.process_time() - began) / len(rows)
            split[-1]["of which decode and resize"] = 1000 * sum(timed.seconds) / len(rows)
            began = time.process_time()
            for i in range(len(rows)):
                loader.dataset[i]
            split[-1]["torchvision's"] = 1000 * (time.process_time() - began) / len(rows)
            rounds.append({k: images_per_second(*tier) for k, tier in tiers.items()})
            memory.append(resident_mb())
    result = summary(args, rows, split, rounds, memory, float(apart.abs().max()))
    return result | {"bytes_an_image": sizes}


def summary(
    args: argparse.Namespace,
    rows: np.ndarray,
    split: list[dict[str, float]],
    rounds: list[dict[str, float]],
    memory: list[float],
    apart: float,
) -> dict[str, Any]:
    def median(values: Iterable[float]) -> float:
        return statistics.median(values)

    tiers = {
        name: {
            "images_per_second": median(r[name] for r in rounds),
            "times_the_dataloader": median(r[name] / r[BASELINE] for r in rounds),
        }
        for name in rounds[0]
    }
    return {
        "machine": machine(),
        "settings": {"images": len(rows), "rounds": args.rounds, "workers": args.workers}
        | {"batch_size": args.batch_size},
        "stages_core_ms": {name: median(s[name] for s in split) for name in split[0]},
        "tiers": tiers,
        "pipeline_over_own_decode_and_resize": median(
            s["whole pipeline"] / s["of which decode and resize"] for s in split
        ),
        "pipeline_over_decode_and_resize_alone": median(
            s["whole pipeline"] / (s["decode"] + s["resize"]) for s in split
        ),
        "memory_mb": memory,
        "largest_difference_of_normalised_pixels": apart,
    }


def show(result: dict[str, Any]) -> None:
    print(f"{'stage, an image':32}{'core-ms':>12}")
    for name, value in result["stages_core_ms"].items():
        print(f"{name:32}{value:12.3f}")
    workers = result["settings"]["workers"]
    print(f"\n{f'tier ({workers} workers)':32}{'images/s':>12}{'× DataLoader':>14}")
    for name, tier in result["tiers"].items():
        rate, ratio = tier["images_per_second"], tier["times_the_dataloader"]
        print(f"{name:32}{rate:12,.0f}{ratio:14.2f}")
    sizes = (f"{name} {size / 1000:.1f}" for name, size in result["bytes_an_image"].items())
    print(f"\nkB an image: {', '.join(sizes)}")
    own = result["pipeline_over_own_decode_and_resize"]
    alone = result["pipeline_over_decode_and_resize_alone"]
    print(f"\nthe whole pipeline takes {own:.2f} × the core-time of its own decode and resize,")
    print(f"and {alone:.2f} × of the same done one image after the other in one thread")
    memory = result["memory_mb"]
    print("memory after each round:", *(f"{mb:.0f}" for mb in memory), "MB")
    apart = result["largest_difference_of_normalised_pixels"]
    print(f"largest difference from the DataLoader's normalised pixels: {apart:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("data", type=Path, help="folder or list of images")
    parser.add_argument("--images", type=int, default=400, help="how many of them")
    parser.add_argument("--rounds", type=int, default=5, help="medians are over these")
    parser.add_argument("--workers", type=int, default=2, help="threads, or processes")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--fast-passes", type=int, default=5, help="a round of a fast tier")
    parser.add_argument("--scratch", type=Path, help="where the pack goes for a while")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    result = measure(args)
    show(result)
    keep(result, args.json)


if __name__ == "__main__":
    main()
