"""What the tests of the benchmarks share."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPEED = Path(__file__).resolve().parents[2] / "examples" / "speed"
Benchmark = Callable[[str, str], tuple[dict[str, Any], str]]


@pytest.fixture
def benchmark(tmp_path: Path) -> Benchmark:
    """Runs a script of ``examples/speed`` with some words, in a process of its own: its result,
    and what it prints."""

    def run(script: str, words: str) -> tuple[dict[str, Any], str]:
        command = [sys.executable, str(SPEED / script), *words.split(), "--json", "o.json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "o.json").read_text()), done.stdout

    return run
