"""What every process of ``test_parallel.py`` does: ten steps of each network and placement.

``ranks_worker FOLDER WORLD,MODEL:PLACEMENT,… …`` runs each group in WORLD processes; rank 0
writes the weights after the last step, the losses and the bytes it sent to
FOLDER/MODEL-PLACEMENT-WORLD.safetensors.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from alexkit.models.blocks import NormedLinear
from alexkit.models.bn import BatchNormAlexNet
from alexkit.models.layered import LayeredNet, initialise
from alexkit.models.owt import OneTowerAlexNet
from alexkit.models.paper import TwoTowerAlexNet
from alexkit.training.hybrid import Hybrid
from alexkit.training.launch import Ranks
from alexkit.training.loop import fit
from alexkit.training.optim import make_optimizer
from alexkit.training.parallel import Data, join, leave
from alexkit.training.placement import Placement, Towers

STEPS = 10
BATCH = 6
CLASSES = 5
WIDTH = 24
"""Units of fc6 and of fc7: the paper's 4,096 would take minutes."""
SIDE = 96
"""Pixels; pool5 is 2 x 2 then, 1,024 values of both towers."""
LOST = {3: (1,), 5: (0, 1, 2, 3, 4), 7: (0, 2, 4)}
"""Step -> places in its batch that cannot be read; in step 7 all of one rank's."""


def narrow_net(name: str) -> LayeredNet:
    """One of the networks with few units in its classifier, in double precision."""
    if name == "alexnet":
        net: LayeredNet = TwoTowerAlexNet(CLASSES)
        for tower in net.get_submodule("towers").children():
            tower.fc6 = nn.Linear(1024, WIDTH // 2)
            tower.fc7 = nn.Linear(WIDTH, WIDTH // 2)
    elif name == "alexnet-owt":
        net = OneTowerAlexNet(CLASSES)
        net.fc6, net.fc7 = nn.Linear(9216, WIDTH), nn.Linear(WIDTH, WIDTH)
    else:
        net = BatchNormAlexNet(CLASSES)
        net.fc6, net.fc7 = NormedLinear(9216, WIDTH), NormedLinear(WIDTH, WIDTH)
    net.fc8 = nn.Linear(WIDTH, CLASSES)
    initialise(net, 0)
    return net.double()


def batches(rank: int, world: int) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Places, images and labels of the rows that this process could read, for each step."""
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        x = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator).double()
        y = torch.randint(CLASSES, (BATCH,), generator=generator)
        own = [i for i in range(rank, BATCH, world) if i not in LOST.get(step, ())]
        yield own, x[own], y[own]


def place(name: str, net: LayeredNet, ranks: Ranks) -> Placement:
    if name == "data":
        return Data(net, ranks)
    if name == "hybrid":
        return Hybrid(net, ranks)
    if name == "towers":
        net.place([torch.device("cpu"), torch.device("cpu")])
        return Towers()
    return Placement()


def train(model: str, how: str, ranks: Ranks, folder: Path) -> None:
    net = narrow_net(model)
    placement = place(how, net, ranks)

    def prepare(batch: tuple[list[int], Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        places, x, y = batch
        placement.meet(net, places, BATCH)
        return x, y

    steps = list(
        fit(
            net,
            batches(placement.rank, placement.world),
            make_optimizer([{"params": net.parameters()}]),
            prepare=prepare,
            loss_fn=nn.CrossEntropyLoss(label_smoothing=0.1),
            lr=lambda step: 0.01 if step < 6 else 0.001,
            seed=0,
            placement=placement,
        )
    )
    weights = net.to_canonical(placement.whole(net.state_dict()))
    if placement.leads:
        told = {
            "losses": [step.loss for step in steps],
            "norms": [step.gradient_norm for step in steps],
            "top1": [step.top1 for step in steps],
            "images": [step.n for step in steps],
            "moved": placement.moved,
        }
        path = folder / f"{model}-{how}-{placement.world}.safetensors"
        tensors = {name: t.detach().contiguous().clone() for name, t in weights.items()}
        save_file(tensors, path, metadata={"told": json.dumps(told)})


def work(folder: Path, words: list[str]) -> None:
    with Ranks.launched() as ranks:
        if not ranks.alone:
            join(ranks, torch.device("cpu"))
        for word in words:
            model, how = word.split(":")
            train(model, how, ranks, folder)
        leave()


def fork(folder: Path, world: int, words: list[str]) -> None:
    """As torchrun would start them, but torch is loaded once for all."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            os.environ |= {
                "RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            try:
                work(folder, words)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    ends = [os.waitpid(child, 0)[1] for child in children]
    assert not any(ends)


def main() -> None:
    folder, *groups = Path(sys.argv[1]), *sys.argv[2:]
    torch.set_num_threads(1)
    for group in groups:
        world, *words = group.split(",")
        if world == "1":
            work(folder, words)
        else:
            fork(folder, int(world), words)


if __name__ == "__main__":
    main()
