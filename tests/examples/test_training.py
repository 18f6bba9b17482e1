"""The training benchmark runs, at a size that says nothing about speed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conftest import photos_in


def test_every_tier_is_measured(tmp_path: Path, benchmark: Any) -> None:
    photos_in(tmp_path / "photos", {"train/ant": 3, "train/bee": 3, "val/ant": 1, "val/bee": 1})
    words = "photos --batch-size 2 --steps 1 --rounds 1 --device cpu --scratch ."
    result, told = benchmark("training.py", words)
    (run,) = result["runs"]
    names = ["plain", "synthetic", "originals", "JPEG pack", "raw pack"]
    assert list(run["kinds"]) == names
    for kind in run["kinds"].values():
        assert kind["images_per_second"] > 0
        assert 0 <= kind["waiting"] < 1
        assert 0 < kind["share_of_peak"] < 1.5
    assert run["kinds"]["plain"]["times_plain"] == 1
    # Twice 0.71 G multiply-adds forward, but for the head of two classes; a step is three.
    assert run["flops_an_image"] == 6 * (714_188_480 - 4096 * 998)
    assert all(name in told for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "photos"]
