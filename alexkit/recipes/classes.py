"""What the outputs of a network are called, and which class of the data each one is.

Classes are matched by name, never by position. Weights of ImageNet rarely name theirs; their
order is that of the sorted WordNet ids, in torchvision's files and in Caffe's alike.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alexkit.errors import DamagedFile, DataError, FileMismatch
from alexkit.events import Chosen, Reporter
from alexkit.images.source import NO_LABEL, ImageSource
from alexkit.json_text import from_json
from alexkit.recipes.orientation import like_imagenet

IMAGENET_CLASSES = 1000
_MAPPED = re.compile(r"(n\d{8})\s*[:\s]\s*(.+)")
"""A line of ``LOC_synset_mapping.txt`` or Caffe's ``synset_words.txt``."""
_NAMED_BY_WNID = re.compile(r"(n\d{8})_[^/]*")
"""A training image of ImageNet: ``n01440764_10026.JPEG``."""
_HINT = "give a line for each output, in their order: a name, or n01440764 : tench, …"

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Outputs:
    """What the K outputs of a network are called.

    Attributes:
        names: K names as people are shown them, no two alike.
        aliases: every name an output is known by -> the output.
        said: whether the weights or a class map name them, so that no order is assumed.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, int]
    said: bool = True

    def of(self, classes: Sequence[str]) -> Labels:
        """(K') int64: the output of each class, -1 where no output is called so."""
        return np.array([self.aliases.get(name, NO_LABEL) for name in classes], np.int64)


def name_outputs(
    count: int, named: Sequence[str], class_map: Path | None, source: str, report: Reporter
) -> Outputs:
    """The names of ``count`` outputs: as the map says, else as the weights do, else
    ImageNet's where there are 1,000.

    Args:
        named: the classes that the weights name; none where they do not.
        class_map: see :func:`read_class_map`.
        source: where the weights are from, for messages.

    Raises:
        FileMismatch: the map does not fit the weights.
        DataError, DamagedFile: see :func:`read_class_map`.
    """
    if class_map is not None:
        lines = read_class_map(class_map)
        if named:
            return _renamed(named, lines, class_map, source)
        if len(lines) != count:
            raise FileMismatch(
                f"{class_map} names {len(lines)} classes, and {source} has {count} outputs",
                hint=_HINT,
            )
        return _outputs(lines)
    if named:
        return _outputs([(name,) for name in named])
    if count == IMAGENET_CLASSES:
        # Not imported above: torchvision takes three seconds.
        names = import_module("alexkit.models.torchvision_nets").imagenet_names()
        report(Chosen("class names", "ImageNet's 1,000", "the weights have as many outputs"))
        return replace(_outputs([(name,) for name in names]), said=False)
    report(Chosen("class names", "output 0, output 1, …", "the weights do not name them"))
    return Outputs(tuple(f"output {i}" for i in range(count)), {}, said=False)


def _renamed(
    named: Sequence[str], lines: Sequence[tuple[str, ...]], class_map: Path, source: str
) -> Outputs:
    every = _outputs(lines)
    at = every.of(named)
    if (at < 0).any():
        lacking = named[int(np.flatnonzero(at < 0)[0])]
        raise FileMismatch(
            f"{class_map} has no line for {lacking!r}, a class of {source}", hint=_HINT
        )
    return _outputs([(*lines[line], name) for line, name in zip(at, named, strict=True)])


def _outputs(lines: Sequence[tuple[str, ...]]) -> Outputs:
    """Of the names of each output, those that mean it alone; the shown one is its first that
    is no WordNet id."""
    times = Counter(alias for line in lines for alias in set(line))
    aliases = {
        alias: at for at, line in enumerate(lines) for alias in line if times[alias] == 1
    }
    shown = []
    for line in lines:
        names = line[1:] if len(line) > 1 and like_imagenet(line[:1]) else line
        alone = next((name for name in names if times[name] == 1), None)
        shown.append(alone or f"{names[0]} ({line[0]})")
    return Outputs(tuple(shown), aliases)


def read_class_map(path: Path) -> list[tuple[str, ...]]:
    """The names of each output, in order.

    Text has a line for each: ``n01440764 : tench, Tinca tinca`` (Kaggle's
    ``LOC_synset_mapping.txt``), the same without colon (Caffe's ``synset_words.txt``), or a
    name. JSON is a list of names, or ``{"0": ["n01440764", "tench"], …}`` (Keras).

    Raises:
        DataError: it cannot be read.
        DamagedFile: it is neither, or names a class twice.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the class map {path} cannot be read: {error}", hint="name a text or JSON file"
        ) from error
    lines = _json_lines(path, text) if path.suffix.lower() == ".json" else _text_lines(text)
    if not lines:
        raise DamagedFile(f"the class map {path} is empty", hint=_HINT)
    firsts = Counter(line[0] for line in lines)
    twice = next((name for name, times in firsts.items() if times > 1), None)
    if twice is not None:
        raise DamagedFile(f"the class map {path} names {twice!r} twice", hint=_HINT)
    return lines


def _text_lines(text: str) -> list[tuple[str, ...]]:
    lines: list[tuple[str, ...]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        mapped = _MAPPED.fullmatch(line)
        if mapped is None:
            lines.append((line,))
        else:
            synonyms = [name.strip() for name in mapped[2].split(",")]
            lines.append(tuple(dict.fromkeys((mapped[1], *synonyms, mapped[2]))))
    return lines


def _json_lines(path: Path, text: str) -> list[tuple[str, ...]]:
    try:
        told: Any = from_json(text)
        if isinstance(told, dict):
            told = [told[str(at)] for at in range(len(told))]
        lines = [(one,) if isinstance(one, str) else tuple(one) for one in told]
        if not all(line and all(isinstance(n, str) for n in line) for line in lines):
            raise ValueError("a name is no text")
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(
            f"the class map {path} is not as expected: {error!r}", hint=_HINT
        ) from error
    return lines


def data_labels(source: ImageSource, report: Reporter) -> tuple[tuple[str, ...], Labels]:
    """The classes and labels (N) int64 of the data, -1 = none; those of a flat folder of
    ImageNet's images from their names (``n01440764_10026.JPEG``), which is said.

    Raises:
        DataError: no image has a label.
    """
    labels = np.asarray(source.labels, np.int64)
    if (labels != NO_LABEL).any():
        return source.classes, labels
    found = [
        _NAMED_BY_WNID.fullmatch(os.path.basename(source.record(row).path))
        for row in range(len(source))
    ]
    if not all(found):
        raise DataError(
            f"{source.root} has no labels",
            hint="put each class's images into a folder named after it, or give a CSV list"
            " path,label",
        )
    wnids = [match[1] for match in found if match]
    classes = tuple(sorted(set(wnids)))
    report(Chosen("labels", f"{len(classes)} WordNet ids", "as the files are named"))
    index = {name: label for label, name in enumerate(classes)}
    return classes, np.array([index[wnid] for wnid in wnids], np.int64)


def match_classes(
    outputs: Outputs, classes: Sequence[str], source: str, report: Reporter
) -> Labels:
    """(K') int64: the output that each class of the data is.

    Where the weights do not name theirs, and the data has as many classes as they have
    outputs, all WordNet ids, the sorted ids are the outputs in order, which is said.

    Raises:
        FileMismatch: a class of the data is none of the network's.
    """
    at = outputs.of(classes)
    if not outputs.said and len(classes) == len(outputs.names) and like_imagenet(classes):
        report(Chosen("class order", "sorted WordNet ids", "the weights do not name classes"))
        return np.arange(len(classes))
    lacking = [name for name, output in zip(classes, at, strict=True) if output < 0]
    if not lacking:
        return at
    some = ", ".join(map(repr, lacking[:3])) + (", …" if len(lacking) > 3 else "")
    theirs = ", ".join(outputs.names[:3]) + (", …" if len(outputs.names) > 3 else "")
    raise FileMismatch(
        f"{len(lacking)} of the {len(classes)} classes of the data ({some}) are none of the "
        f"{len(outputs.names)} of {source} ({theirs})",
        hint="say what the outputs are with --class-map FILE, e.g. LOC_synset_mapping.txt; "
        "classes are matched by name",
    )
