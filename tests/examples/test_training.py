"""The training benchmark runs, at a size that says nothing about speed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import photos_in

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "speed" / "training.py"


def test_every_tier_is_measured(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos", {"train/ant": 3, "train/bee": 3, "val/ant": 1, "val/bee": 1})
    words = ["photos", "--batch-size", "2", "--steps", "1", "--rounds", "1", "--device", "cpu"]
    words += ["--scratch", ".", "--json", "o.json"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "o.json").read_text())
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
    assert all(name in done.stdout for name in names)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.json", "photos"]
