"""A curve of a few characters."""

from __future__ import annotations

import math

from alexkit.cli.sparkline import BARS, WIDTH, Sparkline


def drawn(values: list[float]) -> str:
    line = Sparkline()
    for value in values:
        line.add(value)
    return str(line)


def test_each_value_is_a_bar_while_there_are_few() -> None:
    assert drawn([]) == drawn([1.0]) == ""
    assert drawn([float(i) for i in range(len(BARS))]) == BARS
    assert drawn([2.0, 2.0, 2.0]) == BARS[0] * 3
    assert drawn([1.0, math.nan, 0.0]) == BARS[-1] + BARS[0]


def test_a_long_run_keeps_its_shape_and_its_width() -> None:
    for count in (17, 31, 32, 33, 1000, 12345):
        line = drawn([1 - i / count for i in range(count)])
        assert WIDTH // 2 <= len(line) <= WIDTH
        assert line[0] == BARS[-1]
        assert line[-1] == BARS[0]
        assert [BARS.index(c) for c in line] == sorted(map(BARS.index, line), reverse=True)
