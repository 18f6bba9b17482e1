"""Two processes, four, and two towers learn what one process learns on the joined batch."""

from __future__ import annotations

import json
import re
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
    "alexnet": [
        "2,alexnet:data,alexnet:hybrid,alexnet:hybrid:bf16,alexnet:data:bf16,alexnet:hybrid:save,"
        "alexnet:auto",
        "1,alexnet:single,alexnet:towers,alexnet:single:load",
    ],
    "alexnet-owt": ["2,alexnet-owt:data,alexnet-owt:hybrid", "1,alexnet-owt:single"],
    "alexnet-bn": ["2,alexnet-bn:data,alexnet-bn:hybrid", "1,alexnet-bn:single"],
}
MAPS = 256
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
    """Compares all runs of a network with that of one process; what each told, by placement.

    A run that sent bfloat16 is near it; one that went on from a checkpoint did its last steps.
    """
    weights, told = load(folder / f"{model}-single-1.safetensors")
    others = {}
    for path in sorted(folder.glob(f"{model}-*-[124].safetensors")):
        name = path.stem.removeprefix(f"{model}-")
        tensors, others[name] = load(path)
        narrow = "bf16" in name
        rtol, atol = (0.1, 1e-3) if narrow else (1e-9, 1e-12)
        for tensor in weights:
            torch.testing.assert_close(tensors[tensor], weights[tensor], rtol=rtol, atol=atol)
        last = slice(-len(others[name]["losses"]), None)
        for figure in ("losses", "norms", "top1", "images"):  # told as float32
            rel = 0.05 if narrow and figure in ("losses", "norms") else 1e-6
            if not (narrow and figure == "top1"):
                assert others[name][figure] == pytest.approx(told[figure][last], rel=rel)
    return others


def test_the_paper_s_network_in_every_placement(tmp_path: Path) -> None:
    ran(tmp_path, GROUPS["alexnet"])
    told = same(tmp_path, "alexnet")
    assert told.keys() == {
        *("single-1", "towers-1", "data-2", "hybrid-2", "data-bf16-2", "hybrid-bf16-2"),
        "single-load-1",
    }
    assert len(told["single-load-1"]["losses"]) == STEPS - ranks_worker.HALF
    net = ranks_worker.narrow_net("alexnet")
    sizes = {name: 8 * p.numel() for name, p in net.named_parameters()}
    assert told["data-2"]["moved"]["gradients"] == STEPS * sum(sizes.values())
    layers = ("fc6", "fc7")
    same_here = [n for name, n in sizes.items() if not any(layer in name for layer in layers)]
    convolutions = sum(same_here) - sizes["fc8.weight"]
    moved = told["hybrid-2"]["moved"]
    assert moved["gradients"] == STEPS * convolutions
    assert moved["activations"] == 8 * sum(2 * activations(step) for step in range(STEPS))
    for placement in ("data", "hybrid"):
        wide, narrow = (told[f"{placement}{end}-2"]["moved"] for end in ("", "-bf16"))
        for what in ("gradients", "activations") if placement == "hybrid" else ("gradients",):
            assert narrow[what] == wide[what] / 4  # of float64
    # Both towers: pool2 of 3 x 3, pool5 and fc6 of either go to the other, half of fc7 to the
    # first, and their gradients back; images with their zeros to the second.
    rows = sum(told["towers-1"]["images"])
    crossing = 256 * 3 * 3 + MAPS + WIDTH + WIDTH // 2
    assert told["towers-1"]["moved"] == {
        "activations": 8 * 2 * rows * crossing,
        "images": 8 * rows * 3 * (ranks_worker.SIDE + 3) ** 2,
    }

    measured(json.loads((tmp_path / "auto.json").read_text()))


def measured(told: list[Any]) -> None:
    """Of --parallel auto: all four are told, and the fastest is taken; none with exact sums."""
    (best, (rule,)), (exact, (why,)) = told
    costs = re.findall(r"(\w+) (\d+) ms and ([\d.]+) MB sent by each a step", rule)
    assert [name for name, _, _ in costs] == ["data", "hybrid", "single", "towers"]
    least = min(int(ms) for _, ms, _ in costs)
    assert int(next(ms for name, ms, _ in costs if name == best)) == least
    data, hybrid, single, towers = (float(sent) for _, _, sent in costs)
    assert data > hybrid > single == 0 < towers
    assert exact == "data"
    assert why.startswith("--deterministic: ")


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
    four = f"4,{model}:data,{model}:hybrid,{model}:hybrid:save"
    ran(tmp_path, [*GROUPS[model], four, f"2,{model}:data:load"])
    there = {"single-1", "data-2", "hybrid-2", "data-4", "hybrid-4", "data-load-2"}
    assert same(tmp_path, model).keys() == there
