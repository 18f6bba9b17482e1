"""The fine-tuning benchmark runs, at a size that says nothing about speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from alexkit.models.layered import initialise, with_room
from alexkit.models.specs import find_spec
from tests.conftest import photos_in


@pytest.mark.slow
def test_both_sides_learn_the_same_photos(tmp_path: Path, benchmark: Any) -> None:
    """``pytest -m slow tests/examples/test_finetune_speed.py``: a process of its own."""
    photos_in(tmp_path / "photos", {"ant": 6, "bee": 6})
    net = with_room(find_spec("alexnet-owt").empty(2))
    initialise(net, 0)
    state = {n: t for n, t in net.canonical_state_dict().items() if n.startswith("conv")}
    torch.save(state, tmp_path / "convs.pth")
    words = "--weights convs.pth --seeds 2 --epochs 2 --plain-epochs 2 --workers 0"
    result, _ = benchmark("finetune.py", f"photos {words}")
    assert len(result["default"]["top1"]) == 2
    assert result["linear_head"]["times_less"] > 0
    assert len(result["plain"]["epochs"]) == 2
