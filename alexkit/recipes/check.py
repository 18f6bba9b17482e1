"""What is in a data set, what is wrong with it, and how long work on it will take here."""

from __future__ import annotations

import dataclasses
import functools
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from alexkit.errors import DataError, UsageError
from alexkit.events import Reporter, Stage, silent
from alexkit.images.batches import read_batches
from alexkit.images.draws import Rows
from alexkit.images.duplicates import Duplicates, equal_rows, find_duplicates
from alexkit.images.opening import open_source
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import NO_LABEL, SPLITS, ImageSource, SizedSource
from alexkit.images.survey import Look, look, survey
from alexkit.models.zoo import load_backbone
from alexkit.recipes.devices import decode_threads, one_device
from alexkit.recipes.inputs import holdout
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.options import CheckOptions
from alexkit.recipes.out_file import check_out
from alexkit.recipes.traps import Finding, traps

NOT_USABLE = "cannot be used"
HOLD_OUT = 0.1
"""As ``train`` does; ``finetune`` holds out more, of the same rows."""

MODEL = "alexnet"
"""The network whose speed is measured: the default of ``train``."""

BATCH_SIZE = {"cpu": 16, "cuda": 128}
"""Of the steps that are timed: the recipe's on a GPU; fewer on a CPU, where a step of so many
takes some seconds, and an image as long."""
LOADING_IMAGES = 512
LOADING_SECONDS = 5.0
"""Loading is timed until either is reached."""

COMPARING_SECONDS = 120.0
"""Of a sample; enough for a million images on a solid-state disk, not for a hard disk."""

PACK_SIDE = 256
"""Pixels: what ``pack`` stores unless told otherwise."""

FC7_BYTES = 4096 * 4
"""One row of the default layer of ``features``."""


@dataclass(frozen=True)
class Rates:
    """Images a second: loaded, through the network, and through it and back."""

    loading: float
    forward: float
    forward_backward: float


def run(options: CheckOptions, report: Reporter) -> dict[str, Any]:
    """Looks at names, bytes and pixels of ``options.data``; writes nothing unless asked.

    ``--out F.csv`` is a list of the bad and the repaired images.

    Returns:
        Counts, what was found (``findings``, the wrong ones first), the bad images with
        their reasons, the images with the same bytes among the ``compared``, and under
        ``speed`` the rates measured and the seconds they mean.

    Raises:
        UsageError: no data was named, or ``--out`` is there already.
        DataError: there is no data; or with ``--strict``, an image cannot be used.
    """
    if options.data is None:
        raise UsageError("no data was named", hint="type: alexkit check mydata/")
    device = one_device(options.device, report)
    source = open_source(options.data, report)
    if options.out is not None:
        check_out(options.out, options.overwrite)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.unlink(missing_ok=True)
    threads = decode_threads(options.workers)
    # First, while the files are as cold as they will be.
    loading = _loading_rate(source, _sample(len(source), options.images), threads)
    ledger = Ledger(options.out, strict=options.strict, report=report)
    found = examine(
        source,
        images=options.images,
        seed=options.seed,
        threads=threads,
        ledger=ledger,
        report=report,
    )
    return {
        **found,
        "speed": {
            "model": MODEL,
            "device": str(device),
            "threads": threads,
            **_times(source, Rates(loading, *_compute_rates(device)), device, options.seed),
        },
    }


def examine(
    source: ImageSource,
    *,
    images: int,
    seed: int,
    threads: int,
    ledger: Ledger,
    report: Reporter,
) -> dict[str, Any]:
    """What :func:`run` returns but for ``speed``.

    Args:
        images: how many to decode, 0 = all.
        seed: with which training would hold images out.
        threads: that decode.
        ledger: is told each bad and each repaired image.
    """
    looks = _survey(source, _sample(len(source), images), threads, ledger, report)
    same = _duplicates(source, looks, threads, report)
    findings = traps(source, looks, same.groups, fraction=HOLD_OUT, seed=seed)
    return {
        **_contents(source),
        **_images(source, looks),
        "duplicates": [[source.record(row).path for row in rows] for rows in same.groups],
        "compared": same.compared,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def raise_if_wrong(result: dict[str, Any]) -> None:
    """Raises DataError if training on the data as it is would be wrong."""
    wrong = [Finding(**finding) for finding in result["findings"] if finding["wrong"]]
    if wrong:
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        root = result["root"]
        text = re.sub(f"^{re.escape(root)} ", "it ", wrong[0].text)
        raise DataError(
            f"training on {root} would be wrong: {text}{more}",
            hint=wrong[0].hint,
        )


def _sample(count: int, images: int) -> Rows:
    """All rows, or ``images`` of them at equal distances, so that every class is met."""
    if images == 0 or count <= images:
        return np.arange(count)
    return np.linspace(0, count - 1, images).round().astype(np.int64)


def _survey(
    source: ImageSource, rows: Rows, threads: int, ledger: Ledger, report: Reporter
) -> list[Look]:
    looks = []
    with Stage(report, "images", len(rows), "images") as stage:
        for one in survey(source, rows, threads=threads):
            looks.append(one)
            if one.reason:
                ledger.add(source.record(one.row).path, one.reason, NOT_USABLE)
            elif one.remark:
                ledger.add_used(source.record(one.row).path, one.remark)
            stage.advance(1)
    return looks


def _duplicates(
    source: ImageSource, looks: Sequence[Look], threads: int, report: Reporter
) -> Duplicates:
    """Among all images where sizes tell most of them apart, else among those looked at.

    Files that are no images are left out: one error page in two classes misleads nobody.
    """
    if len(looks) == len(source) or not isinstance(source, SizedSource):
        good = ((one.row, one.digest) for one in looks if not one.reason)
        return Duplicates(equal_rows(good), len(looks))
    known = {one.row: one.digest for one in looks if one.digest}
    found = find_duplicates(
        source, known=known, threads=threads, seconds=COMPARING_SECONDS, report=report
    )
    images = [rows for rows in found.groups if not look(source, rows[0]).reason]
    return Duplicates(images, found.compared)


def _contents(source: ImageSource) -> dict[str, Any]:
    labels = source.labels[source.labels != NO_LABEL]
    per_class = np.bincount(labels, minlength=len(source.classes))
    splits = np.bincount(source.splits, minlength=len(SPLITS))
    return {
        "root": source.root,
        "kind": source.kind,
        "images": len(source),
        "classes": list(source.classes),
        "per_class": [int(n) for n in per_class],
        "unlabelled": int((source.labels == NO_LABEL).sum()),
        "splits": {s.value: int(n) for s, n in zip(SPLITS, splits, strict=True) if n},
    }


def _images(source: ImageSource, looks: Sequence[Look]) -> dict[str, Any]:
    good = [one for one in looks if not one.reason]
    sides = np.array([(one.width, one.height) for one in good]).reshape(-1, 2)
    quantiles = np.quantile(sides, (0, 0.5, 1), axis=0).astype(int) if good else sides
    return {
        "looked_at": len(looks),
        "bytes": sum(one.size for one in looks),
        "formats": dict(Counter(one.format for one in looks if one.digest).most_common()),
        "widths": [int(w) for w, _ in quantiles],
        "heights": [int(h) for _, h in quantiles],
        "bad": {source.record(k.row).path: k.reason for k in looks if k.reason},
        "repaired": {source.record(k.row).path: k.remark for k in looks if k.remark},
    }


def _loading_rate(source: ImageSource, rows: Rows, threads: int) -> float:
    """Images a second from the source to a batch of squares, as training would read them."""
    some = rows[:: max(1, len(rows) // LOADING_IMAGES)][:LOADING_IMAGES]
    batches = read_batches(
        source, some, Preprocess().train_square, batch_size=32, threads=threads, exif=False
    )
    began, done = time.perf_counter(), 0
    for batch in batches:
        done += len(batch.rows) + len(batch.bad)
        if time.perf_counter() - began > LOADING_SECONDS:
            break
    return done / (time.perf_counter() - began)


@functools.cache
def _compute_rates(device: torch.device) -> tuple[float, float]:
    """Images a second of the network alone: forward, and forward with backward; measured once
    a process, as it takes seconds and does not depend on the data."""
    net = load_backbone(MODEL, "random", seed=0, devices=(device,)).net
    x = torch.zeros(BATCH_SIZE[device.type], 3, net.input_side, net.input_side, device=device)

    def forward() -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            float(net(x).sum())  # waits for the device
        return len(x) / (time.perf_counter() - began)

    def both() -> float:
        began = time.perf_counter()
        loss = net(x).sum()
        torch.autograd.backward(loss)
        float(next(net.parameters()).grad.sum())  # type: ignore[union-attr]
        return len(x) / (time.perf_counter() - began)

    # The first pass of each takes memory and chooses kernels.
    return max(forward(), forward()), max(both(), both())


def _times(
    source: ImageSource, rates: Rates, device: torch.device, seed: int
) -> dict[str, Any]:
    """The rates, and what they mean for this data in seconds and bytes."""

    def seconds(images: int, compute: float) -> float:
        # On a CPU loading and computing share the cores; a GPU computes meanwhile.
        parts = images / rates.loading, images / compute
        return sum(parts) if device.type == "cpu" else max(parts)

    count = len(source)
    try:
        held = holdout(source, fraction=HOLD_OUT, seed=seed, report=silent)
        epoch = seconds(len(held.train), rates.forward_backward)
        epoch += seconds(len(held.judged), rates.forward)
    except DataError:
        epoch = None
    return {
        **dataclasses.asdict(rates),
        "epoch_seconds": epoch,
        "features_seconds": seconds(count, rates.forward),
        "features_bytes": count * FC7_BYTES,
        "pack_seconds": count / rates.loading,
        "pack_bytes": count * PACK_SIDE * PACK_SIDE * 3,
    }
