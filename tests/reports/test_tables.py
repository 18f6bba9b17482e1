"""Numbers as people read them."""

from __future__ import annotations

import pytest

from alexkit.reports.tables import percent, size


def test_percent() -> None:
    assert percent(0.8312) == "83.1 %"
    assert percent(None) == "–"


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (244_000_000, "244.0 MB"), (3e12, "3.0 TB")],
)
def test_size(count: int, told: str) -> None:
    assert size(count) == told
