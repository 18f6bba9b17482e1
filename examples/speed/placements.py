"""What each placement of ``train --parallel`` costs a step, and whether it learns the same.

    python examples/speed/placements.py --batch-size 128 --json placements.json

On two GPUs, and more:

    python examples/speed/placements.py --device cuda --processes 2 --batch-size 128 \\
        --exchange float32 --exchange bf16 --steps 20 --json placements.json

Every placement trains the same network on the same synthetic images of 1,000 classes, as many
a device as asked for, and so on the same joint batch. Told are: milliseconds a step and
images a second after the first steps; megabytes that each process, or device, sends a step,
as counted where they are sent, and as they follow from the sizes of the layers; how far the
loss of the last step and all weights after it are from those of one process; on a CPU also
how far one process is from itself when it sums by a single thread, which is what rounding
does. With ``--double`` that is 1e-15, and what is left would be an error. ``data`` and
``hybrid`` run in processes that torch's launcher starts; GPUs talk by NCCL, processors by
gloo. ``towers`` on one device counts what two would send.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from measuring import keep, machine
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alexkit.choices import Exchange, Parallel, Precision
from alexkit.events import silent
from alexkit.models.layered import LayeredNet
from alexkit.models.specs import find_spec
from alexkit.models.zoo import load_backbone
from alexkit.recipes.devices import autocast_of, place, resolve_devices
from alexkit.recipes.placing import OF_ONE, Asked, placed
from alexkit.training.launch import Ranks, launched, start
from alexkit.training.loop import fit
from alexkit.training.optim import make_optimizer
from alexkit.training.parallel import leave

CLASSES = 1000
FILLING = 2
"""Steps at the beginning that are not counted."""
RATE = 0.01
ONE_THREAD = "single-1-thread"


def network(args: argparse.Namespace, devices: tuple[torch.device, ...]) -> LayeredNet:
    net = load_backbone(args.model, "random", seed=0, num_classes=CLASSES).net
    place(net, args.model, devices)
    net.to(memory_format=torch.channels_last)
    return net.double() if args.double else net


def sent(word: str, net: LayeredNet, batch: int, world: int) -> dict[str, float]:
    """Bytes that a process (of ``towers`` a device, on average) sends a step in float32.

    A ring of W processes sums what is of n bytes by sending 2 (W - 1) / W n from each.
    Forward and backward move as much.
    """
    shapes = net.layer_shapes()
    size = {name: torch.Size(shape).numel() for name, shape in shapes.items()}
    ring = 2 * (world - 1) / world
    weights = {name: p.numel() for name, p in net.canonical_state_dict().items()}
    if word == Parallel.DATA.value:
        return {"gradients": 4 * ring * sum(weights.values())}
    if word == Parallel.HYBRID.value:
        divided = ("fc6.", "fc7.", "fc8.weight")
        same = sum(n for name, n in weights.items() if not name.startswith(divided))
        rows = size["pool5"] + size["fc6"] + size["fc8"]  # fc6: a share of it for all rows
        return {"gradients": 4 * ring * same, "activations": 8 * (world - 1) * batch * rows}
    if word == Parallel.TOWERS.value:
        halves = (size["pool2"] + size["pool5"] + size["fc6"] + size["fc7"] / 2) / 2
        joint = batch * world
        image = 3 * (net.input_side + 3) ** 2  # with conv1's zeros at two edges
        return {"activations": 8 * joint * halves, "images": 4 * joint * image / 2}
    return {}


def trained(
    word: str, exchange: Exchange, args: argparse.Namespace, ranks: Ranks, out: Path
) -> None:
    """Trains by one placement; the first process writes weights and figures to ``out``."""
    slots = 2 if word == Parallel.TOWERS.value else 1
    devices = resolve_devices(args.device, silent, most=max(slots, args.processes))
    mine = devices[ranks.local_rank % len(devices) :][:slots]
    net = network(args, mine)
    joint = args.batch_size * args.processes
    autocast = autocast_of(args.precision, mine[0], silent)
    asked = Asked(Parallel(word), exchange, ranks, joint, False, False, autocast)
    placement = placed(asked, net, lambda: network(args, mine), silent)
    places = list(range(ranks.rank, joint, ranks.world))

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        side = net.input_side
        for step in range(FILLING + args.steps):
            generator = torch.Generator().manual_seed(step)
            x = torch.randn(joint, 3, side, side, generator=generator)[places]
            y = torch.randint(CLASSES, (joint,), generator=generator)[places]
            x = x.contiguous(memory_format=torch.channels_last).to(mine[0])
            yield x.double() if args.double else x, y.to(mine[0])

    def prepare(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        placement.meet(net, places, joint)
        return batch

    results = list(
        fit(
            net,
            batches(),
            make_optimizer([{"params": list(net.parameters())}]),
            prepare=prepare,
            loss_fn=nn.CrossEntropyLoss(),
            lr=lambda step: RATE,
            seed=0,
            autocast=autocast,
            placement=placement,
        )
    )
    state = net.to_canonical(placement.whole(net.state_dict()))
    if not placement.leads:
        return
    senders = 2 if word == Parallel.TOWERS.value else 1
    figures = {
        "seconds": statistics.median(r.seconds - r.seconds_waiting for r in results[FILLING:]),
        "losses": [r.loss for r in results],
        "sent": {
            what: nbytes / len(results) / senders for what, nbytes in placement.moved.items()
        },
        "expected": sent(word, network(args, mine).float(), args.batch_size, args.processes),
    }
    whole = {name: t.detach().cpu().contiguous().clone() for name, t in state.items()}
    save_file(whole, out.with_suffix(".safetensors"))
    out.with_suffix(".json").write_text(json.dumps(figures))


def apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The length of the difference of all weights, relative to their own."""
    squares = [
        (
            (one[name].double() - other[name].double()).square().sum(),
            one[name].double().square().sum(),
        )
        for name in one
    ]
    difference, length = (sum(column) for column in zip(*squares, strict=True))
    return float((difference / length) ** 0.5)


def rows(args: argparse.Namespace, folder: Path) -> dict[str, dict[str, Any]]:
    """The figures of each placement, those of several processes from processes of their own."""
    for word in OF_ONE:
        if word in args.placement:
            trained(word, Exchange.FLOAT32, args, Ranks(), folder / word)
    (device, *_) = resolve_devices(args.device, silent)
    if Parallel.SINGLE.value in args.placement and device.type == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        trained(Parallel.SINGLE.value, Exchange.FLOAT32, args, Ranks(), folder / ONE_THREAD)
        torch.set_num_threads(threads)
    if set(args.placement) - set(OF_ONE):
        command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder)]
        status = start(args.processes, command)
        if status:
            raise SystemExit(status)
    found, first = {}, None
    order = [Parallel.SINGLE.value, ONE_THREAD, *OF_ONE, "data", "data-bf16", "hybrid"]
    paths = {path.stem: path for path in folder.glob("*.json")}
    for path in [paths[name] for name in dict.fromkeys([*order, *paths]) if name in paths]:
        figures = json.loads(path.read_text())
        weights = load_file(path.with_suffix(".safetensors"))
        first = first or (figures["losses"], weights)
        figures["loss_apart"] = abs(figures["losses"][-1] / first[0][-1] - 1)
        figures["weights_apart"] = apart(first[1], weights)
        figures["images_per_second"] = args.batch_size * args.processes / figures["seconds"]
        found[path.stem] = figures
    return found


def show(result: dict[str, Any]) -> None:
    settings, machine = result["settings"], result["machine"]
    number = "float64" if result["settings"]["double"] else settings["precision"]
    print(
        f"{settings['model']}, batch {settings['batch_size']} a device, "
        f"{settings['processes']} devices, {number}, {machine['device']}"
    )
    head = ("ms a step", "images/s", "MB sent", "MB expected", "loss apart", "weights apart")
    print(f"{'':16}" + "".join(f"{word:>14}" for word in head))
    for name, row in result["placements"].items():
        moved, expected = (sum(row[key].values()) / 1e6 for key in ("sent", "expected"))
        expected *= (0.5 if name.endswith("bf16") else 1) * (2 if settings["double"] else 1)
        print(
            f"{name:16}{1000 * row['seconds']:14,.0f}{row['images_per_second']:14,.1f}"
            f"{moved:14,.2f}{expected:14,.2f}{row['loss_apart']:14.1e}{row['weights_apart']:14.1e}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="alexnet")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=2, help="of data and hybrid")
    parser.add_argument("--batch-size", type=int, default=128, help="images a device")
    parser.add_argument("--steps", type=int, default=3, help="counted")
    parser.add_argument("--precision", type=Precision, default=Precision.FLOAT32)
    parser.add_argument(
        "--placement",
        action="append",
        help="repeat for more (all)",
        choices=[*OF_ONE, "data", "hybrid"],
    )
    parser.add_argument("--exchange", type=Exchange, action="append", help="repeat for more")
    parser.add_argument("--double", action="store_true", help="all in float64")
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    two = len(find_spec(args.model).empty().slots) > 1
    args.placement = args.placement or [*(OF_ONE if two else OF_ONE[:1]), "data", "hybrid"]
    if launched():
        with Ranks.launched() as ranks:
            for exchange in args.exchange or [Exchange.FLOAT32]:
                for word in [word for word in args.placement if word not in OF_ONE]:
                    end = "-bf16" if exchange is Exchange.BF16 else ""
                    trained(word, exchange, args, ranks, args.folder / (word + end))
            leave()
        return
    with tempfile.TemporaryDirectory() as folder:
        found = rows(args, Path(folder))
    result = {
        "machine": machine(args.device),
        "settings": {
            name: value if isinstance(value, int) else str(getattr(value, "value", value))
            for name, value in vars(args).items()
        },
        "placements": found,
    }
    show(result)
    keep(result, args.json)


if __name__ == "__main__":
    main()
