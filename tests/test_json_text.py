"""JSON that somebody else may have written."""

from __future__ import annotations

import pytest

from alexkit.json_text import from_json


@pytest.mark.parametrize("text", ["", "{", "[" * 200_000, b"\xff", '{"a": ' * 200_000])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has words of its own
        from_json(text)


def test_what_is() -> None:
    assert from_json(b'{"a": [1, null]}') == {"a": [1, None]}
