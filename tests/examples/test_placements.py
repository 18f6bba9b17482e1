"""The placements' benchmark runs; its bytes follow from the sizes of the layers."""

from __future__ import annotations

from typing import Any

import pytest


def placed(benchmark: Any, words: str) -> dict[str, dict[str, Any]]:
    result, told = benchmark("placements.py", f"{words} --device cpu")
    found: dict[str, dict[str, Any]] = result["placements"]
    assert all(name in told for name in found)
    return found


@pytest.mark.slow  # python -m pytest -m slow tests/examples/test_placements.py, a minute
def test_the_paper_s_network_sends_what_its_layers_say(benchmark: Any) -> None:
    found = placed(benchmark, "--batch-size 1 --steps 1 --exchange float32 --exchange bf16")
    for name, row in found.items():
        half = 2 if name.endswith("bf16") else 1
        assert sum(row["sent"].values()) == pytest.approx(
            sum(row["expected"].values()) / half, rel=1e-4
        )
        assert row["weights_apart"] < (1e-2 if half == 2 else 1e-4)
    assert sum(found["data"]["sent"].values()) == pytest.approx(4 * 60_965_224, rel=1e-4)


@pytest.mark.slow
def test_a_network_that_hybrid_cannot_divide(benchmark: Any) -> None:
    words = "--model alexnet-bn-gap --placement single --placement data"
    found = placed(benchmark, f"{words} --batch-size 2 --steps 1 --double")
    assert list(found) == ["single", "single-1-thread", "data"]
    assert found["data"]["weights_apart"] < 1e-9
