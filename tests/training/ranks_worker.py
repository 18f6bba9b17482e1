"""What every process of ``test_parallel.py`` does: eight steps of each network and placement.

``ranks_worker FOLDER WORLD,MODEL:PLACEMENT,… …`` runs each group in WORLD processes; rank 0
writes the weights after the last step, the losses and the bytes it sent to
FOLDER/MODEL-PLACEMENT-WORLD.safetensors. ``MODEL:PLACEMENT:bf16`` sends half the bytes.
``MODEL:PLACEMENT:save`` stops after half the steps and leaves a checkpoint,
``MODEL:PLACEMENT:load`` goes on from it. ``MODEL:auto`` leaves what was measured in
FOLDER/auto.json, two slots on one device standing for two GPUs.
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

from alexkit.choices import Exchange, Parallel
from alexkit.events import Chosen, Event
from alexkit.models.blocks import NormedLinear
from alexkit.models.bn import BatchNormAlexNet
from alexkit.models.layered import LayeredNet, initialise
from alexkit.models.owt import OneTowerAlexNet
from alexkit.models.paper import TwoTowerAlexNet
from alexkit.recipes.placing import Asked, placed
from alexkit.training.checkpoint import Checkpoint, CheckpointFolder
from alexkit.training.hybrid import Hybrid
from alexkit.training.launch import Ranks
from alexkit.training.loop import fit
from alexkit.training.optim import load_optimizer_state, make_optimizer, optimizer_state
from alexkit.training.parallel import Data, join, leave
from alexkit.training.placement import Placement, Towers

STEPS = 8
BATCH = 6
CLASSES = 5
WIDTH = 24
"""Units of fc6 and of fc7: the paper's 4,096 would take minutes."""
SIDE = 64
"""Pixels; pool5 is 1 x 1 then, 256 values of both towers."""
HALF = 4
"""Steps before a checkpoint; the rate has not dropped yet."""
LOST = {3: (1,), 5: (0, 1, 2, 3, 4), 7: (0, 2, 4)}
"""Step -> places in its batch that cannot be read; in step 7 all of one rank's."""


def narrow_net(name: str) -> LayeredNet:
    """One of the networks with few units in its classifier, in double precision."""
    if name == "alexnet":
        net: LayeredNet = TwoTowerAlexNet(CLASSES)
        for tower in net.get_submodule("towers").children():
            tower.fc6 = nn.Linear(256, WIDTH // 2)
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


def batches(rank: int, world: int, steps: range) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Places, images and labels of the rows that this process could read, for each step."""
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        x = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator).double()
        y = torch.randint(CLASSES, (BATCH,), generator=generator)
        own = [i for i in range(rank, BATCH, world) if i not in LOST.get(step, ())]
        if step in steps:
            yield own, x[own], y[own]


def place(name: str, net: LayeredNet, ranks: Ranks, *, narrow: bool) -> Placement:
    if name == "data":
        return Data(net, ranks, narrow=narrow)
    if name == "hybrid":
        return Hybrid(net, ranks, narrow=narrow)
    if name == "towers":
        net.place([torch.device("cpu"), torch.device("cpu")])
        return Towers(net)
    return Placement()


def choose(model: str, ranks: Ranks, folder: Path) -> None:
    def make() -> LayeredNet:
        net = narrow_net(model).float()
        net.input_side = SIDE
        return net

    cpu, told = torch.device("cpu"), []
    for exact in (False, True):
        asked = Asked(
            Parallel.AUTO,
            Exchange.FLOAT32,
            ranks,
            BATCH,
            exact,
            by_layer=False,
            pair=(cpu, cpu),
        )
        events: list[Event] = []
        placement = placed(asked, make(), make, events.append)
        told.append([placement.name, [e.rule for e in events if isinstance(e, Chosen)]])
    if not ranks.rank:
        (folder / "auto.json").write_text(json.dumps(told))


def train(model: str, how: str, what: str, ranks: Ranks, folder: Path) -> None:
    net = narrow_net(model)
    placement = place(how, net, ranks, narrow=what == "bf16")
    optimizer = make_optimizer([{"params": net.parameters()}])
    checkpoints = CheckpointFolder(folder / "state")
    began = 0
    if what == "load":
        found = checkpoints.latest() if placement.leads else None
        checkpoint = placement.spread(found.checkpoint if found else None)
        assert checkpoint is not None
        began, tensors = checkpoint.step, checkpoint.tensors
        net.load_state_dict(placement.parts(tensors["weights"]))
        buffers = placement.parts(tensors["optimizer"])
        load_optimizer_state(optimizer, net, buffers, checkpoint.scalars["rates"])
    todo = range(began, HALF if what == "save" else STEPS)

    def prepare(batch: tuple[list[int], Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        places, x, y = batch
        placement.meet(net, places, BATCH)
        return x, y

    steps = list(
        fit(
            net,
            batches(placement.rank, placement.world, todo),
            optimizer,
            prepare=prepare,
            loss_fn=nn.CrossEntropyLoss(label_smoothing=0.1),
            lr=lambda step: 0.01 if step < 6 else 0.001,
            seed=0,
            first_step=began,
            placement=placement,
        )
    )
    if what == "save":
        buffers, rates = optimizer_state(optimizer, net)
        state = {"weights": placement.whole(net.state_dict())}
        state["optimizer"] = placement.whole(buffers)
        if placement.leads:
            checkpoints.save(Checkpoint(HALF, state, {"rates": rates}))
        return
    weights = net.to_canonical(placement.whole(net.state_dict()))
    if placement.leads:
        told = {
            "losses": [step.loss for step in steps],
            "norms": [step.gradient_norm for step in steps],
            "top1": [step.top1 for step in steps],
            "images": [step.n for step in steps],
            "moved": placement.moved,
        }
        name = "-".join([model, how, *([what] if what else []), str(placement.world)])
        path = folder / f"{name}.safetensors"
        tensors = {name: t.detach().contiguous().clone() for name, t in weights.items()}
        save_file(tensors, path, metadata={"told": json.dumps(told)})


def work(folder: Path, words: list[str]) -> None:
    with Ranks.launched() as ranks:
        if not ranks.alone:
            join(ranks, torch.device("cpu"))
        for word in words:
            model, how, what = (*word.split(":"), "")[:3]
            if how == "auto":
                choose(model, ranks, folder)
                continue
            train(model, how, what, ranks, folder)
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
