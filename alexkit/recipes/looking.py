"""A look into a feature file: what its layers do, where its images lie, what is near what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alexkit.choices import Split
from alexkit.errors import UnknownName
from alexkit.features.neighbours import Neighbours, nearest
from alexkit.features.store import FeatureStore
from alexkit.features.writer import Rows, Values
from alexkit.images.source import ImageSource, in_splits
from alexkit.reports.activations import activations
from alexkit.reports.eval_page import in_order
from alexkit.reports.features import feature_record
from alexkit.reports.features_page import FeatureFacts, Near
from alexkit.reports.maps import BEFORE, principal, tsne, umap
from alexkit.reports.page import Dots
from alexkit.reports.thumbnails import SPRITE_SIDE, rows_of, sprite, squares, thumbnails

QUERIES, NEAREST = 5, 6
"""As in figure 4 of the paper: five images, six neighbours each."""
FEWEST = 5
"""Rows that make a map."""
HELD_OUT = (Split.VAL, Split.TEST)
PREFERRED = ("fc7", "fc6", "pool5")
"""fc7 is whose neighbours the paper shows (figure 4)."""


@dataclass(frozen=True)
class Effort:
    """How much is looked at for a page.

    Attributes:
        seconds: for reading thumbnails.
        rows: images of a map.
        layer_bytes: of a layer, for its statistics and its map.
        search_bytes: of a layer up to which all its rows are searched for neighbours.
        layer: of the map and the neighbours; None is the highest.
        umap: also that map.
        seed: of what is drawn.
    """

    seconds: float
    rows: int
    layer_bytes: int
    search_bytes: int
    layer: str | None = None
    umap: bool = False
    seed: int = 0


BRIEF = Effort(seconds=0.5, rows=160, layer_bytes=32 << 20, search_bytes=256 << 20)
"""At the end of a run."""
FULL = Effort(seconds=60.0, rows=1000, layer_bytes=256 << 20, search_bytes=1 << 62)
"""When a page is asked for."""


def look_at(store: FeatureStore, source: ImageSource | None, effort: Effort) -> FeatureFacts:
    """What the page of a feature file shows, but for its name, record and ledger.

    Raises:
        UnknownName: the file has no such layer.
    """
    chosen = chosen_layer(store, effort.layer)
    done = store.rows()
    rows = spread_out(done, store, chosen, effort)
    layers, x = {}, None
    for name in in_order(list(store.layers)) if done.size else ():
        values = sampled(store, name, spread_out(done, store, name, effort))
        layers[name] = activations(values)
        x = values if name == chosen else x
    maps: list[Dots] = []
    near: list[Near] = []
    small: dict[str, str] = {}
    mapped = searched = ""
    if rows.size >= FEWEST and x is not None:
        maps, mapped = _maps(store, source, chosen, (rows, x), done.size, effort)
        all_rows = store.nbytes(chosen) <= effort.search_bytes
        queries = draw_queries(store, done if all_rows else rows, effort.seed)
        among = candidates(store, queries, done if all_rows else rows)
        near = neighbours_of(store, chosen, queries, among)
        searched = (
            f"Five images and the nearest of {among.size:,} others in {chosen}, by Euclidean "
            "distance; of data with splits, held-out images and the nearest training images"
            + ("." if all_rows else ", evenly drawn here; alexkit report searches all of them.")
        )
        paths = dict.fromkeys(
            path for one in near for path in (one.query[0], *(p for p, _, _ in one.found))
        )
        small = thumbnails(source, list(paths), seconds=effort.seconds)
    return FeatureFacts(
        name="",
        told=feature_record(store),
        record=None,
        layers=layers,
        maps=maps,
        mapped=mapped,
        near=near,
        searched=searched,
        thumbnails=small,
    )


def chosen_layer(store: FeatureStore, layer: str | None) -> str:
    """The layer that was asked for, else fc7, fc6, pool5 or the highest.

    Raises:
        UnknownName: the file has no such layer.
    """
    if layer is not None:
        if layer not in store.layers:
            raise UnknownName(f"layer in {store.path}", layer, store.layers)
        return layer
    for name in PREFERRED:
        if name in store.layers:
            return name
    return in_order(list(store.layers))[-1]


def spread_out(rows: Rows, store: FeatureStore, layer: str, effort: Effort) -> Rows:
    """At most ``effort.rows`` of the rows, and ``effort.layer_bytes`` of them, evenly drawn."""
    bytes_a_row = max(1, store.nbytes(layer) // len(store))
    most = max(1, min(rows.size, effort.rows, effort.layer_bytes // bytes_a_row))
    return rows[(np.arange(most) * rows.size) // most] if rows.size else rows


def sampled(store: FeatureStore, layer: str, rows: Rows) -> Values:
    """(n, …) values of few rows of a large file, the views of an image averaged."""
    # One by one: together they would be read with all that lies between them.
    values = np.concatenate([store.values(layer, rows[i : i + 1]) for i in range(rows.size)])
    return store.averaged(values)


def draw_queries(store: FeatureStore, among: Rows, seed: int) -> Rows:
    """Rows to find neighbours of: held-out ones where there are any, of different classes as
    far as possible, drawn by ``seed``."""
    held_out = among[in_splits(store.splits[among], *HELD_OUT)]
    pool = np.random.default_rng(seed).permutation(held_out if held_out.size else among)
    _, firsts = np.unique(store.labels[pool], return_index=True)
    firsts = np.sort(firsts)[:QUERIES]
    rest = np.setdiff1d(np.arange(pool.size), firsts)[: QUERIES - firsts.size]
    return np.asarray(pool[np.concatenate([firsts, rest])], np.int64)


def candidates(store: FeatureStore, queries: Rows, among: Rows) -> Rows:
    """What is searched: of a file with splits the training rows, where the queries are others,
    as in the paper's figure 4; else all."""
    if in_splits(store.splits[queries], *HELD_OUT).all():
        learned = among[~in_splits(store.splits[among], *HELD_OUT)]
        return learned if learned.size else among
    return among


def search(store: FeatureStore, layer: str, queries: Rows, among: Rows) -> Neighbours:
    """The rows of ``among`` nearest to each query, itself left out."""

    def read(rows: Rows) -> npt.NDArray[np.float32]:
        return store.averaged(store.values(layer, rows))

    return nearest(read(queries), among, read, NEAREST, skip=queries)


def neighbours_of(store: FeatureStore, layer: str, queries: Rows, among: Rows) -> list[Near]:
    """The queries with those nearest to them, by path and class."""
    found = search(store, layer, queries, among)
    return [
        Near(
            (store.paths[query], store.class_of(query)),
            [
                (store.paths[row], store.class_of(row), float(distance))
                for row, distance in zip(rows, distances, strict=True)
                if row >= 0
            ],
        )
        for query, rows, distances in zip(queries, found.rows, found.distances, strict=True)
    ]


def _maps(
    store: FeatureStore,
    source: ImageSource | None,
    layer: str,
    drawn: tuple[Rows, Values],
    total: int,
    effort: Effort,
) -> tuple[list[Dots], str]:
    rows, x = drawn
    points, shares = principal(x, BEFORE)
    explained = f"{100 * shares[:2].sum():.0f} % of the variance"
    made = {f"Principal components ({explained})": points[:, :2]}
    made["t-SNE"] = tsne(points, effort.seed)
    if effort.umap:
        made["UMAP"] = umap(points, effort.seed)
    sheet, across, places = _sprite(store, source, rows, effort)
    shown = [place for place in places if place >= 0]
    labels = store.labels[rows].tolist()
    names = sorted({store.classes[k] for k in labels if k >= 0})
    groups = [names.index(store.classes[k]) if k >= 0 else -1 for k in labels]
    maps = [
        Dots(
            title=f"{layer}: {what}",
            points=xy.tolist(),
            groups=groups,
            names=names,
            labels=[store.paths[row] for row in rows],
            places=places,
            sprite=sheet,
            across=across,
            side=SPRITE_SIDE,
        )
        for what, xy in made.items()
    ]
    told = f"{rows.size:,} of {total:,} images" + (
        ", evenly drawn" if rows.size < total else ""
    )
    told += f"; {len(shown):,} of them with their thumbnail. A point is an image, near points "
    told += "have similar features; t-SNE keeps neighbours together, and distances between "
    return maps, told + "groups mean little. Hover, or press the arrow keys, to see an image."


def _sprite(
    store: FeatureStore, source: ImageSource | None, rows: Rows, effort: Effort
) -> tuple[str, int, Sequence[int]]:
    if source is None:
        return "", 1, [-1] * rows.size
    paths = [store.paths[row] for row in rows]
    at = rows_of(source, paths)
    wanted = [at.get(path, -1) for path in paths]
    there = [row for row in wanted if row >= 0]
    small = squares(source, there, SPRITE_SIDE, seconds=effort.seconds)
    return sprite(small, wanted)
