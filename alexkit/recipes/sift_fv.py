"""Images into Fisher vectors of SIFT: the feature file of the runner-up of 2012."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from alexkit.choices import Split
from alexkit.errors import DataError, FileMismatch, UsageError
from alexkit.events import Note, Reporter, Saved, Stage, Warned
from alexkit.features.extract import FeatureBatch
from alexkit.features.fisher import SIFT_FV, Codebook, Floats, Recipe, sample, scikit_image
from alexkit.features.layout import Plan, RowProblem, Status
from alexkit.features.sift import dense_sift
from alexkit.features.store import FeatureStore
from alexkit.features.writer import FeatureWriter
from alexkit.images.batches import Batch, epoch_order, read_batches
from alexkit.images.draws import Rows
from alexkit.images.preprocess import Pixels, Preprocess
from alexkit.images.source import ImageSource, in_splits
from alexkit.recipes.devices import decode_threads
from alexkit.recipes.inputs import (
    FEATURES_FILE,
    FILE_SUFFIXES,
    choose_data,
    data_record,
    open_data,
    tell_pack,
)
from alexkit.recipes.interrupts import stop_requests
from alexkit.recipes.ledger import LEDGER, Ledger, none_usable
from alexkit.recipes.options import FeaturesOptions, SharedOptions
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.origin import circumstances
from alexkit.recipes.reporting import report_at_the_end
from alexkit.recipes.run_dir import Remembering, RunDir, now
from alexkit.recipes.sharing import NO_FEATURES, keep

CODEBOOK_SUFFIX = ".codebook.npz"
TAKEN = {"data", "layer", "dtype", "exif"} | {f.name for f in dataclasses.fields(SharedOptions)}
"""The options that mean something here; all others are about a network."""
BATCH_SIZE = 16
"""A batch takes seconds, and a signal waits for its end."""
FEW = 20
"""Descriptors a Gaussian below which the codebook is said to rest on little."""
FLAT = "has no SIFT descriptor: every patch of it is flat"


def asked(options: FeaturesOptions) -> bool:
    """Whether these are the features that are asked for."""
    return SIFT_FV in options.layer


def run(options: FeaturesOptions, report: Reporter) -> dict[str, Any]:
    """Fits a codebook on the training images and writes the Fisher vector of every image.

    The squares are those a network gets: the centre 224 of 256. The codebook is kept beside
    the feature file; the same command continues an interrupted one with it.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`.
    """
    began = time.monotonic()
    report = Remembering(report)
    _check(options)
    scikit_image()
    data = choose_data(options.data, f"alexkit features photos/ --layer {SIFT_FV}", report)
    source = open_data(data, report)
    preprocess = settle_exif(Preprocess(), options.exif, source, report)
    tell_pack(source, preprocess, report)
    fitting = _training_rows(source, report)
    recipe = Recipe(options.seed)
    folder: RunDir | None = None
    with ExitStack() as stack:
        path, ledger_path = options.out, None
        if path is None or path.suffix not in FILE_SUFFIXES:
            folder = stack.enter_context(RunDir.open("features", options, report))
            folder.note("data", data_record(source))
            path, ledger_path = folder.path / FEATURES_FILE, folder.path / LEDGER
        provenance = _provenance(options, data, source, preprocess, recipe, fitting)
        plan = Plan.of(source, {SIFT_FV: (recipe.length,)}, options.dtype, provenance)
        writer = FeatureStore.create(path, plan, overwrite=options.overwrite)
        stack.enter_context(writer)
        # With threads of its own inside each of ours, BLAS takes ten times longer; and with
        # one, its sums do not depend on the number of cores.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        ledger = Ledger(ledger_path, strict=options.strict, report=report)
        images = _Images(source, preprocess, options, ledger)
        codebook = _codebook(path, writer, images, recipe, fitting, provenance, report)
        _fill(writer, images, codebook, report)
        if ledger.bad == len(source):
            writer.discard()
            raise none_usable(len(source), source.root)
        writer.finish({"codebook_sha256": codebook.sha256(), "ended": now()})
        result = {
            "file": str(path),
            "rows": len(source),
            "bad": ledger.bad,
            "repaired": ledger.repaired,
            "layers": {SIFT_FV: [recipe.length]},
            "model": SIFT_FV,
            "weights": str(_beside(path)),
            "seconds": time.monotonic() - began,
        }
        report(Saved("features", str(path)))
        if folder is not None:
            folder.finish(result)
    if folder is not None:  # the file is closed by now
        report_at_the_end(folder.path, report, source)
    return result


def _check(options: FeaturesOptions) -> None:
    """Raises UsageError for what belongs to a network."""
    others = sorted(set(options.layer) - {SIFT_FV})
    if others:
        raise UsageError(
            f"{SIFT_FV} is no layer of a network, and {', '.join(others)} of one was asked too",
            hint="make two files with two commands; alexkit eval takes both",
        )
    for field in dataclasses.fields(options):
        if field.name not in TAKEN and getattr(options, field.name) != field.default:
            name = field.name.replace("_", "-")
            raise UsageError(
                f"--{name} is about a network, and {SIFT_FV} has none",
                hint=f"leave --{name} out",
            )
    if options.device not in ("auto", "cpu"):
        raise UsageError(
            f"{SIFT_FV} is computed on the CPU, not on {options.device}",
            hint="leave --device out",
        )


def _training_rows(source: ImageSource, report: Reporter) -> Rows:
    """The rows a codebook may see: those of train; where nothing is split, all.

    Raises:
        DataError: there are splits, and none of the rows is for training.
    """
    for split in (Split.TRAIN, Split.NONE):
        rows = np.flatnonzero(in_splits(source.splits, split))
        if rows.size == len(source):
            report(
                Note(
                    "no image is set apart for testing: the codebook is fitted on all of "
                    "them, without labels, so it has seen those that eval will test on"
                )
            )
        if rows.size:
            return rows
    raise DataError(
        f"{source.root} has no training images to fit a codebook on",
        hint="put them into a train folder beside the others",
    )


@dataclasses.dataclass(frozen=True)
class _Images:
    """The squares of a source, and what becomes of them in several threads."""

    source: ImageSource
    preprocess: Preprocess
    options: FeaturesOptions
    ledger: Ledger

    def each(
        self, rows: Rows, compute: Callable[[int, Pixels], Floats]
    ) -> Iterator[tuple[Batch, list[Floats]]]:
        """Batches of ``rows``, with what ``compute`` makes of the row and pixels of each."""
        threads = decode_threads(self.options.workers)
        batches = read_batches(
            self.source,
            rows,
            self.preprocess.square,
            batch_size=self.options.batch_size or BATCH_SIZE,
            threads=threads,
            exif=self.preprocess.exif,
        )
        with ThreadPoolExecutor(threads, thread_name_prefix="alexkit-sift") as pool:
            for batch in self._told(batches):
                yield batch, list(pool.map(compute, batch.rows.tolist(), batch.pixels.numpy()))

    def _told(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Unreadable images go into the ledger when they are met, in either pass."""
        for batch in self.ledger.watch(batches):
            for bad in batch.bad:
                self.ledger.add(bad.path, bad.reason, NO_FEATURES)
            yield batch


def _beside(path: Path) -> Path:
    return path.with_name(path.name + CODEBOOK_SUFFIX)


def _codebook(
    path: Path,
    writer: FeatureWriter,
    images: _Images,
    recipe: Recipe,
    fitting: Rows,
    provenance: dict[str, Any],
    report: Reporter,
) -> Codebook:
    """The codebook that is there if it was fitted to the same, else a new one.

    Raises:
        FileMismatch: rows were written with a codebook that is gone.
        DataError: the training images do not make one, or under ``--strict`` one is bad.
    """
    place, about = _beside(path), provenance["fingerprint"]
    found = Codebook.load(place, about) if place.exists() else None
    if found is not None:
        report(Note(f"the codebook is {place}"))
        return found
    if len(writer.pending()) + len(writer.problems()) < len(images.source):
        raise FileMismatch(
            f"{writer.partial} was begun with a codebook that is not in {place}",
            hint="put it back, or remove the unfinished file to start again",
        )
    try:
        fitted = _fit(images, recipe, fitting, report)
    except DataError:
        writer.discard()  # there is no row in it yet
        raise
    fitted.save(place, about)
    report(Saved("codebook", str(place)))
    return fitted


def _fit(images: _Images, recipe: Recipe, fitting: Rows, report: Reporter) -> Codebook:
    """Samples descriptors of training images and fits the codebook to them."""
    rows = np.sort(epoch_order(fitting, seed=recipe.seed, epoch=0)[: recipe.images])
    count = min(recipe.most, -(-recipe.descriptors // len(rows)))

    def some(row: int, rgb: Pixels) -> Floats:
        return sample(dense_sift(rgb), count, seed=recipe.seed, row=row)

    found: list[Floats] = []
    with Stage(report, "codebook", len(rows), "images") as stage:
        for batch, described in images.each(rows, some):
            found += described
            stage.advance(len(batch.rows) + len(batch.bad))
    descriptors = np.concatenate(found) if found else np.empty((0, 128), np.float32)
    report(
        Note(f"fitting {recipe.components} Gaussians to {len(descriptors):,} SIFT descriptors")
    )
    if len(descriptors) < FEW * recipe.components:
        report(
            Warned(
                f"the codebook rests on {len(descriptors):,} SIFT descriptors for "
                f"{recipe.components} Gaussians: more training images make it better"
            )
        )
    return Codebook.fit(descriptors, recipe)


def _fill(writer: FeatureWriter, images: _Images, codebook: Codebook, report: Reporter) -> None:
    """Encodes the rows the file still lacks, and writes each batch before the next.

    Raises:
        Interrupted: by a signal, after the batch at hand was written.
    """
    source, pending = images.source, writer.pending()
    done = len(source) - len(pending)
    images.ledger.add_rows(source, writer.problems().items(), NO_FEATURES)

    def encoded(row: int, rgb: Pixels) -> Floats:
        descriptors = dense_sift(rgb)
        return codebook.encode(descriptors) if len(descriptors) else descriptors[:, 0]

    with (
        stop_requests() as stop,
        Stage(report, "features", len(source), "images", done) as stage,
    ):
        for batch, vectors in images.each(pending, encoded):
            found = _as_features(batch, vectors)
            stage.advance(keep(found, writer, source, images.ledger))
            stop.check(f"{stage.done} of {len(source)} images are in {writer.partial}")
    images.ledger.close()


def _as_features(batch: Batch, vectors: list[Floats]) -> FeatureBatch:
    """The rows of a batch that have a vector, and what is wrong with the others."""
    full = np.array([len(vector) > 0 for vector in vectors], bool)
    problems = [RowProblem(bad.row, Status.UNREADABLE, bad.reason) for bad in batch.bad]
    problems += [RowProblem(row, Status.NON_FINITE, FLAT) for row in batch.rows[~full].tolist()]
    values = {SIFT_FV: np.stack([v for v in vectors if len(v)])} if full.any() else {}
    return FeatureBatch(batch.rows[full], values, tuple(problems))


def _provenance(
    options: FeaturesOptions,
    data: Path,
    source: ImageSource,
    preprocess: Preprocess,
    recipe: Recipe,
    fitting: Rows,
) -> dict[str, Any]:
    """Format 1's provenance. A file is continued only by a command of equal fingerprint."""
    seen = "all images" if fitting.size == len(source) else "training images"
    fixed = {
        "model": SIFT_FV,
        "recipe": recipe.to_record() | {"fitted_on": seen},
        "preprocessing": preprocess.to_record(),
        "data": source.fingerprint(),
        "layers": [SIFT_FV],
        "dtype": options.dtype.value,
    }
    return fixed | {
        "fingerprint": fixed,
        "preprocessing": preprocess.to_record() | {"views": "center"},
        **circumstances(source, data, "cpu"),
    }
