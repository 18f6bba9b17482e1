"""Two processes, four, and two towers learn what one process learns on the joined batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.training import ranks_worker
from tests.training.ranks_worker import BATCH, CLASSES, STEPS, WIDTH

GROUPS = {
    "alexnet": ["2,alexnet:data,alexnet:hybrid", "1,alexnet:single,alexnet:towers"],
    "alexnet-owt": ["2,alexnet-owt:data,alexnet-owt:hybrid", "1,alexnet-owt:single"],
    "alexnet-bn": ["2,alexnet-bn:data,alexnet-bn:hybrid", "1,alexnet-bn:single"],
}
MAPS = 1024
"""Values of pool5, of an image of both towers."""


def ran(folder: Path, groups: list[str]) -> None:
    words = [sys.executable, "-m", ranks_worker.__name__, str(folder), *groups]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, json.loads(  # noqa: SIM118
            file.metadata()["told"]
        )


def same(folder: Path, model: str) -> dict[str, dict[str, Any]]:
    """Compares all runs of a network with that of one process; what each told, by placement."""
    weights, told = load(folder / f"{model}-single-1.safetensors")
    others = {}
    for path in sorted(folder.glob(f"{model}-*-[124].safetensors")):
        placement, world = path.stem.removeprefix(f"{model}-").rsplit("-", 1)
        if placement not in ("data", "hybrid", "towers"):
            continue
        tensors, other = load(path)
        for name, tensor in weights.items():
            torch.testing.assert_close(tensors[name], tensor, rtol=1e-9, atol=1e-12)
        assert other["losses"] == pytest.approx(told["losses"], rel=1e-6)  # told as float32
        assert other["norms"] == pytest.approx(told["norms"], rel=1e-6)
        assert other["top1"] == pytest.approx(told["top1"])
        assert other["images"] == told["images"]
        others[f"{placement}-{world}"] = other
    return others


def test_the_paper_s_network_in_every_placement(tmp_path: Path) -> None:
    ran(tmp_path, GROUPS["alexnet"])
    told = same(tmp_path, "alexnet")
    assert told.keys() == {"data-2", "hybrid-2", "towers-1"}
    net = ranks_worker.narrow_net("alexnet")
    sizes = {name: 8 * p.numel() for name, p in net.named_parameters()}
    assert told["data-2"]["moved"]["gradients"] == STEPS * sum(sizes.values())
    layers = ("fc6", "fc7")
    same_here = [n for name, n in sizes.items() if not any(layer in name for layer in layers)]
    convolutions = sum(same_here) - sizes["fc8.weight"]
    moved = told["hybrid-2"]["moved"]
    assert moved["gradients"] == STEPS * convolutions
    assert moved["activations"] == 8 * sum(2 * activations(step) for step in range(STEPS))


def activations(step: int) -> int:
    """Values one of two processes sends in the forward pass of a step, and again backward:
    pool5 of own rows, its units of fc6 for all rows, sums of logits of the other's rows."""
    lost = ranks_worker.LOST.get(step, ())
    shares = [len([i for i in range(r, BATCH, 2) if i not in lost]) for r in (0, 1)]
    room, rows = max(shares), sum(shares)
    return room * MAPS + rows * WIDTH // 2 + room * CLASSES


@pytest.mark.slow  # python -m pytest -m slow tests/training/test_parallel.py
@pytest.mark.parametrize("model", ["alexnet-owt", "alexnet-bn"])
def test_the_other_networks(tmp_path: Path, model: str) -> None:
    ran(tmp_path, [*GROUPS[model], f"4,{model}:data,{model}:hybrid"])
    assert same(tmp_path, model).keys() == {"data-2", "hybrid-2", "data-4", "hybrid-4"}
