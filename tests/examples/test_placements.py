"""The placements' benchmark runs; its bytes follow from the sizes of the layers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "speed" / "placements.py"


def placed(folder: Path, *words: str) -> dict[str, dict[str, float]]:
    command = [sys.executable, str(SCRIPT), *words, "--device", "cpu", "--json", "o.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads((folder / "o.json").read_text())[
        "placements"
    ]
    assert all(name in done.stdout for name in found)
    return found


@pytest.mark.slow  # python -m pytest -m slow tests/examples/test_placements.py, a minute
def test_the_paper_s_network_sends_what_its_layers_say(tmp_path: Path) -> None:
    words = ["--batch-size", "1", "--steps", "1", "--exchange", "float32", "--exchange", "bf16"]
    found = placed(tmp_path, *words)
    for name, row in found.items():
        half = 2 if name.endswith("bf16") else 1
        assert sum(row["sent"].values()) == pytest.approx(
            sum(row["expected"].values()) / half, rel=1e-4
        )
        assert row["weights_apart"] < (1e-2 if half == 2 else 1e-4)
    assert sum(found["data"]["sent"].values()) == pytest.approx(4 * 60_965_224, rel=1e-4)


@pytest.mark.slow
def test_a_network_that_hybrid_cannot_divide(tmp_path: Path) -> None:
    words = ["--model", "alexnet-bn-gap", "--placement", "single", "--placement", "data"]
    found = placed(tmp_path, *words, "--batch-size", "2", "--steps", "1", "--double")
    assert list(found) == ["single", "single-1-thread", "data"]
    assert found["data"]["weights_apart"] < 1e-9
