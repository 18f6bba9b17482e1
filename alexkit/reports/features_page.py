"""The page of ``features``: what layers do, a map of the images, their nearest neighbours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alexkit.reports.activations import Activations, activation_blocks
from alexkit.reports.features import feature_blocks
from alexkit.reports.page import Block, Dots, Grid, Page, Section, Thumbnail, Thumbnails, Words
from alexkit.reports.settings import Ledger, data_blocks, settings_blocks
from alexkit.reports.tables import size


@dataclass(frozen=True)
class Near:
    """An image and those nearest to it: paths, classes ("" for none) and distances."""

    query: tuple[str, str]
    found: Sequence[tuple[str, str, float]]


@dataclass(frozen=True)
class FeatureFacts:
    """All that the page of a feature file is made of.

    Attributes:
        name: of the run, or of the file.
        told: see :func:`alexkit.reports.features.feature_record`.
        record: the ``run.json``, where there is one.
        layers: what was looked at of each.
        maps: the images as points.
        mapped: what the maps are of, in words.
        near: chosen images with their neighbours.
        searched: what was searched, in words.
        ledger: of bad images.
        thumbnails: path -> data URI.
        notes: what is missing on the page, and why.
    """

    name: str
    told: Mapping[str, Any]
    record: Mapping[str, Any] | None
    layers: Mapping[str, Activations]
    maps: Sequence[Dots] = ()
    mapped: str = ""
    near: Sequence[Near] = ()
    searched: str = ""
    ledger: Ledger = ()
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()


def features_page(given: FeatureFacts) -> Page:
    """The report of a feature file."""
    told = given.told
    first, *others = feature_blocks(told).items()
    made: list[Block] = [Grid(first[1], "The file")]
    made += [Grid(table, title) for title, table in others]
    data = (given.record or {}).get("data") or {}
    state = "finished" if told["complete"] else "unfinished"
    sections = [
        Section("Activations", activation_blocks(given.layers)),
        Section("Map", _map(given)),
        Section("Nearest neighbours", _near(given)),
        Section("Data", data_blocks(data, given.ledger, {})),
        Section("The file", made),
    ]
    if given.record is not None:
        sections.append(Section("Settings", settings_blocks(given.record)))
    bad = sum(n for word, n in told["status"].items() if word in ("unreadable", "non-finite"))
    figures = [
        ("images", f"{told['rows']:,}"),
        ("without features", f"{bad:,}"),
        ("classes", f"{len(told['classes']):,}"),
        ("layers", ", ".join(told["layers"])),
        ("size", size(told["bytes"])),
    ]
    return Page(f"features: {given.name}", f"A feature file, {state}", figures, sections)


def _map(given: FeatureFacts) -> list[Block]:
    if not given.maps:
        return []
    return [Words(given.mapped), *(Words(note) for note in given.notes), *given.maps]


def _near(given: FeatureFacts) -> list[Block]:
    if not given.near:
        return []
    blocks: list[Block] = [Words(given.searched)]

    def shown(path: str, *lines: str) -> Thumbnail:
        return Thumbnail(given.thumbnails.get(path, ""), path, tuple(filter(None, lines)))

    for near in given.near:
        images = [shown(*near.query)]
        images += [shown(path, name, f"distance {far:.4g}") for path, name, far in near.found]
        blocks.append(Thumbnails(images, f"{near.query[0]}, and the images nearest to it"))
    return blocks
