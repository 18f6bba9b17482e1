"""Numbers as people read them."""

from __future__ import annotations

import csv
import io

import pytest

from alexkit.reports.tables import csv_bytes, percent, size


def test_percent() -> None:
    assert percent(0.8312) == "83.1 %"
    assert percent(None) == "–"


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (244_000_000, "244.0 MB"), (3e12, "3.0 TB")],
)
def test_size(count: int, told: str) -> None:
    assert size(count) == told


@pytest.mark.parametrize("name", ["a\rb", "a\nb", "a\r\nb", "a,b", 'a"b', "\r", ""])
def test_a_name_is_one_cell_of_csv_whatever_is_in_it(name: str) -> None:
    text = csv_bytes(["path", "label"], [[name, "x"], ["next", "y"]]).decode()
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["path", "label"],
        [name, "x"],
        ["next", "y"],
    ]
    assert text.startswith("path,label\n")
    assert text.endswith("\nnext,y\n")
