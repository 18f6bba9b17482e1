"""What a weight file of alexkit says about itself: network, classes, preprocessing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from alexkit.errors import DamagedFile
from alexkit.images.preprocess import Preprocess
from alexkit.json_text import from_json

FORMAT = "alexkit/weights"
FORMAT_VERSION = "1"

EDITED = "the file was edited, or written by another version of alexkit"


def describe(model: str, classes: Sequence[str], preprocess: Preprocess) -> dict[str, str]:
    """The metadata of a file: text by text, as safetensors and ONNX keep it."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": model,
        "classes": json.dumps(list(classes)),
        "preprocess": json.dumps(preprocess.to_record()),
    }


def is_record(metadata: Mapping[str, str]) -> bool:
    """Whether :func:`describe` made it; others write metadata too, e.g. {"format": "pt"}."""
    return metadata.get("format") == FORMAT


def described(
    metadata: Mapping[str, str], default: Preprocess, path: Path
) -> tuple[tuple[str, ...], Preprocess]:
    """Class names and preprocessing in a file of ours; none and ``default`` in another's.

    Raises:
        DamagedFile: what is there makes no sense.
    """
    if not is_record(metadata):
        return (), default
    if metadata.get("format_version") != FORMAT_VERSION:
        raise DamagedFile(
            f"{path} has weight format {metadata.get('format_version')}, not {FORMAT_VERSION}",
            hint="use the version of alexkit that wrote it",
        )
    try:
        classes = from_json(metadata["classes"])
        record = from_json(metadata["preprocess"])
    except (KeyError, ValueError) as error:
        raise DamagedFile(
            f"{path} does not describe its weights: {error!r}", hint=EDITED
        ) from error
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise DamagedFile(f"{path} has no list of class names", hint=EDITED)
    if not isinstance(record, dict):
        raise DamagedFile(f"{path} has no preprocessing record", hint=EDITED)
    return tuple(classes), Preprocess.from_record(record)


def check_count(classes: Sequence[str], outputs: int, path: Path) -> None:
    """Raises DamagedFile where there are names, and not one for each output."""
    if classes and outputs != len(classes):
        raise DamagedFile(
            f"{path} names {len(classes)} classes for {outputs} outputs", hint=EDITED
        )
