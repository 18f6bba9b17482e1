"""JSON that somebody else may have written."""

from __future__ import annotations

import json
from typing import Any


def from_json(text: str | bytes) -> Any:
    """The value that a text tells.

    Raises:
        ValueError: it is no JSON, or nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested without end") from None
