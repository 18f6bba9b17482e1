"""What the tests of the benchmarks share."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Capsys

SPEED = Path(__file__).resolve().parents[2] / "examples" / "speed"
Benchmark = Callable[[str, str], tuple[dict[str, Any], str]]


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capsys) -> Benchmark:
    """Runs a script of ``examples/speed`` with some words: its result, and what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(SPEED)

    def run(script: str, words: str) -> tuple[dict[str, Any], str]:
        monkeypatch.setattr(
            sys, "argv", [str(SPEED / script), *words.split(), "--json", "o.json"]
        )
        runpy.run_path(str(SPEED / script), run_name="__main__")
        return json.loads((tmp_path / "o.json").read_text()), capsys.readouterr().out

    return run
