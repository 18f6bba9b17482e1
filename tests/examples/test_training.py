"""The training benchmark runs, at a size that says nothing about speed."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from alexkit.models.specs import find_spec
from tests.conftest import photos_in

NET = "alexnet-bn-gap"  # a step of its 2.6 million weights takes no second
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc8")


def test_every_tier_is_measured(tmp_path: Path, benchmark: Any) -> None:
    photos_in(tmp_path / "photos", {"train/ant": 3, "train/bee": 3, "val/ant": 1, "val/bee": 1})
    words = f"photos --model {NET} --batch-size 2 --steps 1 --rounds 1 --device cpu --scratch ."
    result, told = benchmark("training.py", words)
    (run,) = result["runs"]
    names = ["plain", "synthetic", "originals", "JPEG pack", "raw pack"]
    assert list(run["kinds"]) == names
    for kind in run["kinds"].values():
        assert kind["images_per_second"] > 0
        assert 0 <= kind["waiting"] < 1
        assert kind["share_of_peak"] > 0
    assert run["kinds"]["plain"]["times_plain"] == 1
    # A multiplication and an addition for each weight at each place; a step is three passes.
    net = find_spec(NET).empty(2)
    weights, shapes = net.canonical_state_dict(), net.layer_shapes()
    made = sum(weights[f"{n}.weight"].numel() * prod(shapes[n][1:]) for n in LAYERS)
    assert run["flops_an_image"] == 6 * made
    assert all(name in told for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "photos"]
