"""What is told of a run's options and data."""

from __future__ import annotations

from alexkit.reports.settings import asked, data_facts


def test_a_value_of_zero_was_asked_and_a_flag_that_is_off_was_not() -> None:
    options = {"seed": 0, "mixup": 0.0, "strict": False, "layer": [], "lr": None, "out": "R"}
    assert asked({"options": options}) == {"seed": 0, "mixup": 0.0, "out": "R"}


def test_names_of_classes_are_no_fact_of_the_data() -> None:
    data = {"images": 0, "classes": ["a", "b"], "path": None}
    assert data_facts(data) == {"images": 0}
