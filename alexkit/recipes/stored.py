"""The frozen part of a network, run once: its values in a feature file, and a fit on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexkit.errors import DamagedFile, OutOfSpace
from alexkit.events import Note, Reporter, Stage, Warned
from alexkit.features import layout
from alexkit.features.store import FeatureStore
from alexkit.images.batches import Batch
from alexkit.images.draws import Rows, below, words
from alexkit.images.views import Views
from alexkit.recipes.extraction import Job
from alexkit.recipes.feed import LEFT_OUT, Feed, MakeFeed, Pixels, Unaugmented
from alexkit.recipes.interrupts import stop_requests
from alexkit.recipes.layers import tell_forecast
from alexkit.recipes.ledger import Ledger, none_usable
from alexkit.recipes.origin import provenance_of
from alexkit.recipes.plan import Plan
from alexkit.recipes.run_dir import now
from alexkit.recipes.sharing import keep
from alexkit.training.loop import Prepare

STAGE = "frozen part"
IN_MEMORY = 2**31
"""Bytes of stored values up to which they are read once; larger ones are read as needed."""


@dataclass(frozen=True)
class StoredViews:
    """What a feature file holds for a fit.

    Attributes:
        path: the file.
        layer: its layer.
        views: of each image.
        usable: (n) int64, the rows that have values.
        values: (N, V, …) float32 of all rows, NaN where there is none.
    """

    path: Path
    layer: str
    views: Views
    usable: Rows
    values: Tensor

    @property
    def center(self) -> int:
        """Which view is the one that judges."""
        return 4 if self.views.kind == "ten" else 0

    def rows(self, rows: Rows) -> Rows:
        """Those of ``rows`` that have values."""
        return rows[np.isin(rows, self.usable)]


def stored_values(job: Job, folder: Path, ledger: Ledger, report: Reporter) -> StoredViews:
    """Reads the values of every image, after computing those that are not there yet.

    The file's name is a hash of what decides its values: weights, pixels, views. A run with
    another head, another seed or another split finds it again. One that is damaged, finished
    or not, is made anew, and that is said: nothing is in it but what can be computed again.

    Raises:
        Interrupted: by a signal; the same command goes on with the images that are left.
        OutOfSpace: the file does not fit.
        DataError: no image could be read.
    """
    (layer,) = job.stored.shapes
    provenance = provenance_of(job)
    told = json.dumps(provenance["fingerprint"], sort_keys=True).encode()
    key = hashlib.sha256(told).hexdigest()[:16]
    path = folder / f"{layer.replace('/', '_')}-{key}.h5"
    if _is_whole(path, report):
        report(Note(f"the frozen part was run before: {path}"))
    else:
        try:
            tell_forecast(path, len(job.source), job.stored, report)
        except OutOfSpace as problem:
            hint = "free some space, choose another --out, or store less: --augment none"
            raise OutOfSpace(problem.message, hint=hint) from problem
        _compute(job, path, provenance, ledger, report)
    with FeatureStore.open(path) as store:
        usable = store.rows()
        ledger.add_rows(job.source, store.reasons.items(), LEFT_OUT)
        if not usable.size:
            raise none_usable(len(job.source), job.source.root)
        values = torch.from_numpy(store.values(layer, np.arange(len(store))))
    if len(job.stored.views) == 1:
        values = values[:, None]
    return StoredViews(path, layer, job.stored.views, usable, values)


def _is_whole(path: Path, report: Reporter) -> bool:
    """Whether the file is there as it was written."""
    if not path.is_file():
        return False
    try:
        FeatureStore.open(path).close()
    except DamagedFile as problem:
        report(Warned(f"{problem.message}: the frozen part is run again"))
        return False
    return True


def _compute(
    job: Job, path: Path, provenance: dict[str, object], ledger: Ledger, report: Reporter
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    plan = layout.Plan.of(job.source, job.stored.shapes, job.stored.dtype, provenance)
    with FeatureStore.create(path, plan, overwrite=True) as writer:
        done = writer.size - writer.pending().size
        with (
            stop_requests() as stop,
            Stage(report, STAGE, writer.size, "images", done) as stage,
        ):
            for batch in job.features(writer.pending()):
                stage.advance(keep(batch, writer, job.source, ledger, LEFT_OUT))
                stop.check(f"{stage.done} of {writer.size} images are in {writer.partial}")
        writer.finish({"ended": now()})


class StoredFeed:
    """Stored values in place of pixels; of several views each row has one an epoch, drawn by
    (seed, epoch, row)."""

    def __init__(self, plan: Plan, stored: StoredViews) -> None:
        self.plan = plan
        self.stored = stored
        self.device = plan.backbone.net.slots[0]

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """A view of each row."""
        views = len(self.stored.views)
        drawn = below(words("view", self.plan.seed, epoch, rows, 1)[:, 0], views)
        return self._batches(rows, drawn), self._ready

    def judging(self, rows: Rows) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """The centre of each row."""
        return self._batches(rows, np.full(len(rows), self.stored.center)), self._ready

    def _batches(self, rows: Rows, views: Rows) -> Iterator[Batch]:
        labels = self.plan.source.labels
        size = self.plan.batch_size
        for first in range(0, len(rows), size):
            some, which = rows[first : first + size], views[first : first + size]
            there = np.isin(some, self.stored.usable)
            some, which = some[there], which[there]
            values = self.stored.values[some, which]
            told = torch.from_numpy(labels[some].astype(np.int64))
            yield Batch(some, values, told, (), (), np.flatnonzero(there), len(there))

    def _ready(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return batch.pixels.to(self.device), batch.labels


class FrozenFeed:
    """The frozen part run anew for every batch: what stored values would be of the same
    pixels."""

    def __init__(self, plan: Plan, pixels: Feed, after: str) -> None:
        self.net = plan.backbone.net
        self.pixels = pixels
        self.after = after

    def learning(self, rows: Rows, epoch: int) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """As the pixels are made."""
        batches, prepare = self.pixels.learning(rows, epoch)
        return batches, lambda batch: self._through(*prepare(batch))

    def judging(self, rows: Rows) -> tuple[Iterable[Batch], Prepare[Batch]]:
        """The exact evaluation path."""
        batches, prepare = self.pixels.judging(rows)
        return batches, lambda batch: self._through(*prepare(batch))

    def _through(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not len(x):
            return x, y
        learning = self.net.training
        self.net.eval()
        with torch.no_grad():
            value = self.net.taps(x, [self.after])[self.after]
        self.net.train(learning)
        return value, y


def feed_of(stored: StoredViews | None, after: str | None, *, augmented: bool) -> MakeFeed:
    """Stored values where there are any, else the frozen part up to ``after`` run anew, else
    pixels."""

    def make(plan: Plan, ledger: Ledger) -> Feed:
        if stored is not None:
            return StoredFeed(plan, stored)
        pixels = Pixels(plan, ledger) if augmented else Unaugmented(plan, ledger)
        return pixels if after is None else FrozenFeed(plan, pixels, after)

    return make


def usable_views(values: int, images: int, views: Views) -> Views:
    """``views``, or fewer where their values would not fit: ``values`` float32 of a view."""
    for fewer in (views, Views("flip"), Views("center")):
        if len(fewer) <= len(views) and 4 * values * images * len(fewer) <= IN_MEMORY:
            return fewer
    return Views("center")
