"""Class probabilities, or a probe's scores, of images that are named."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexkit.choices import Exif
from alexkit.errors import DataError, FileMismatch, UsageError
from alexkit.events import Chosen, Note, Reporter
from alexkit.features.pooling import Pooling
from alexkit.images.draws import Rows
from alexkit.images.named import open_images
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource
from alexkit.images.views import Views
from alexkit.models.weights import read_metadata
from alexkit.probes.metrics import top_k
from alexkit.probes.norms import pooled
from alexkit.probes.saved import FORMAT as PROBE
from alexkit.probes.saved import SavedProbe, load_probe
from alexkit.recipes.classes import Outputs, name_outputs
from alexkit.recipes.classify import (
    NOT_CLASSIFIED,
    Classifier,
    Scored,
    Scores,
    choose_classifier,
    classify,
    gather,
)
from alexkit.recipes.devices import one_device
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import choose_backbone, choose_weights, tell_pack
from alexkit.recipes.layers import Stored
from alexkit.recipes.ledger import Ledger
from alexkit.recipes.orientation import settle_exif
from alexkit.recipes.out_file import RESULT, check_out, write_result
from alexkit.recipes.using import PredictOptions
from alexkit.reports.predictions import prediction_rows

TOP = 5


@dataclass(frozen=True)
class Prediction:
    """What an image is taken for.

    Attributes:
        path: of the image, as it was named.
        classes: names, the likeliest first; none where the image could not be read.
        values: of each class its probability, 0 to 1, or a probe's score.
        reason: why there is none, else "".
    """

    path: str
    classes: tuple[str, ...]
    values: tuple[float, ...]
    reason: str = ""


@dataclass(frozen=True)
class _Scorer:
    """Something that gives K values to an image: a network's softmax, or a probe."""

    outputs: Outputs
    measure: str
    job: Job
    probe: SavedProbe | None = None

    def scores(self, rows: Rows, ledger: Ledger) -> Iterator[Scored]:
        """Batch by batch."""
        if self.probe is None:
            yield from classify(self.job, rows, ledger)
            return
        layer = self.probe.layer
        for batch in self.job.features(rows):
            ledger.add_batch(self.job.source, batch, NOT_CLASSIFIED)
            seen = len(batch.rows) + len(batch.problems)
            if len(batch.rows):
                values = batch.values[layer]
                if len(self.job.stored.views) > 1:
                    values = values.mean(axis=1)
                if self.probe.record.get("pooled"):
                    values = pooled(layer, values)
                x = values.reshape(len(values), -1)
                yield batch.rows, self.probe.scores(x), seen
            else:
                yield batch.rows, np.empty((0, len(self.outputs.names))), seen


def run(options: PredictOptions, report: Reporter) -> dict[str, Any]:
    """Predicts the class of every image that is named.

    Several ``--weights`` are an ensemble: the mean of their probabilities, classes matched by
    name. An image in a folder that is called like a class is taken to be of that class, and
    ``top1`` and ``top5`` are of these; they are None where there is none.

    Returns:
        ``predictions`` (``path``, ``top``: ``class`` and ``probability`` or ``score``, and
        ``error``), ``measure``, ``top1``, ``top5``, ``split``, ``n``: images predicted,
        ``judged``: those with a known class, and ``bad``.

    Raises:
        DataError: no image, or none could be read.
        AlexkitError: see :mod:`alexkit.errors`.
    """
    began = time.monotonic()
    if options.out is not None:
        check_out(options.out, options.overwrite, endings=RESULT)
    found, names, judged = predictions(options, report)
    bad = [one for one in found if one.reason]
    measure, predicted = names.measure, [one for one in found if not one.reason]
    if not predicted:
        raise DataError(
            f"none of the {len(found)} images could be used: {bad[0].path}: {bad[0].reason}",
            hint="are these images? the lines above say what is wrong with each",
        )
    result = {
        "top1": judged[0],
        "top5": judged[1],
        "split": "",
        "n": len(predicted),
        "judged": judged[2],
        "bad": len(bad),
        "measure": measure,
        "predictions": [
            {
                "path": one.path,
                "top": [
                    {"class": name, measure: value}
                    for name, value in zip(one.classes, one.values, strict=True)
                ],
                "error": one.reason or None,
            }
            for one in found
        ],
        "seconds": time.monotonic() - began,
    }
    if options.out is not None:
        write_result(options.out, result, prediction_rows(result), report)
    return result


def predictions(
    options: PredictOptions, report: Reporter
) -> tuple[list[Prediction], _Scorer, tuple[float | None, float | None, int]]:
    """The predictions in the order of the images; what made them; and top-1, top-5 and the
    number of images with a known class."""
    if not options.images:
        raise UsageError("no image was named", hint="type: alexkit predict photo.jpg")
    source = open_images(options.images, sys.stdin.buffer, report)
    for told in source.notes:
        report(Note(told))
    rows = np.arange(len(source))
    ledger = Ledger(None, strict=options.strict, report=report)
    total: Scores | None = None
    first: _Scorer | None = None
    there = np.ones(len(source), bool)
    for weights in options.weights:
        scorer = _scorer(options, weights, source, report)
        classes = len(scorer.outputs.names)
        scored = scorer.scores(rows, ledger)
        scores, done = gather(scored, rows, classes, "predict", report)
        first = first or scorer
        if first is not scorer:
            scores = scores[:, _aligned(first, scorer)]
        there &= done
        total = scores if total is None else total + scores
    ledger.close()
    assert total is not None
    assert first is not None
    total /= len(options.weights)
    reasons = ledger.reasons()
    count = min(options.top or TOP, total.shape[1])
    order = np.argsort(-total, axis=1, kind="stable")[:, :count]
    found = []
    for row in rows.tolist():
        path = source.record(row).path
        if not there[row]:
            found.append(Prediction(path, (), (), reasons.get(path, "no features")))
            continue
        best = order[row].tolist()
        values = tuple(float(total[row, at]) for at in best)
        found.append(Prediction(path, tuple(first.outputs.names[at] for at in best), values))
    return found, first, _judged(source, first, total, rows[there])


def _scorer(
    options: PredictOptions, weights: str, source: ImageSource, report: Reporter
) -> _Scorer:
    device = one_device(options.device, report)
    path = choose_weights(weights, report)
    if isinstance(path, Path) and read_metadata(path).get("format") == PROBE:
        return _of_probe(options, path, source, device, report)
    chosen = choose_classifier(
        options.model, str(path), options.class_map, options.seed, report
    )
    _settle(chosen, source, options, report)
    stored = Stored.one_layer(chosen.backbone, chosen.layer, Views.parse(options.views))
    job = Job.of(source, chosen.backbone, stored, device, options, report)
    return _Scorer(chosen.outputs, "probability", job)


def _settle(
    chosen: Classifier, source: ImageSource, options: PredictOptions, report: Reporter
) -> None:
    backbone = chosen.backbone
    asked = options.exif
    if asked is None and source.kind != "pack":
        asked = Exif.APPLY  # people look at photos upright
    backbone.preprocess = settle_exif(backbone.preprocess, asked, source, report)
    tell_pack(source, backbone.preprocess, report)


def _of_probe(
    options: PredictOptions,
    path: Path,
    source: ImageSource,
    device: torch.device,
    report: Reporter,
) -> _Scorer:
    """A probe and the network whose layer it reads, as its file says.

    Raises:
        FileMismatch: the network's weights are not there any more, or others.
    """
    probe = load_probe(path)
    record = probe.record
    if options.class_map is not None:
        raise UsageError("a probe names its classes", hint="leave --class-map out")
    told, model = record.get("weights") or {}, record.get("model")
    origin = str(told.get("source"))
    if model is None or not Path(origin).is_file():
        raise FileMismatch(
            f"{path} reads {probe.layer} of the weights {origin}, which are not there",
            hint="put them where they were when the features were made",
        )
    backbone = choose_backbone(str(model), origin, options.seed, report)
    if backbone.sha256 != told.get("sha256"):
        raise FileMismatch(
            f"{origin} is not what it was when the probe {path} was made",
            hint="put the weights back, or fit the probe again",
        )
    made = dict(record.get("preprocessing") or {})
    stored_views = str(made.pop("views", "center"))
    backbone.preprocess = Preprocess.from_record(made)
    if options.exif is not None:
        backbone.preprocess = settle_exif(backbone.preprocess, options.exif, source, report)
    (layer,) = backbone.resolve_layers([probe.layer])
    report(Chosen("probe", f"{record.get('probe')} on {layer}", "as the file says"))
    outputs = name_outputs(len(probe.classes), probe.classes, None, str(path), report)
    pooling = Pooling.parse(str(record.get("pool") or "none"))
    stored = Stored.one_layer(backbone, layer, Views.parse(stored_views), pooling)
    job = Job.of(source, backbone, stored, device, options, report)
    return _Scorer(outputs, "score", job, dataclasses.replace(probe, layer=layer))


def _aligned(first: _Scorer, other: _Scorer) -> list[int]:
    """For each output of the first, the output of the other that has its name.

    Raises:
        FileMismatch: they do not know the same classes.
        UsageError: probabilities and scores have no mean.
    """
    if first.measure != other.measure:
        raise UsageError(
            "a probe's scores and probabilities have no mean", hint="predict with one of them"
        )
    names, theirs = first.outputs.names, other.outputs.names
    if set(names) != set(theirs):
        odd = sorted(set(names) ^ set(theirs))[:3]
        raise FileMismatch(
            f"the networks do not know the same classes: {', '.join(map(repr, odd))}, …",
            hint="an ensemble is of networks for the same classes",
        )
    index = {name: at for at, name in enumerate(theirs)}
    return [index[name] for name in names]


def _judged(
    source: ImageSource, scorer: _Scorer, scores: Scores, rows: Rows
) -> tuple[float | None, float | None, int]:
    """Top-1, top-5 and number of the images whose class is known."""
    known = []
    for row in rows.tolist():
        record = source.record(row)
        folder = os.path.basename(os.path.dirname(record.path))
        name = source.classes[record.label] if record.label >= 0 else folder
        label = scorer.outputs.aliases.get(name)
        if label is not None:
            known.append((row, label))
    if not known:
        return None, None, 0
    at, labels = np.array(known).T
    return top_k(scores[at], labels, 1), top_k(scores[at], labels, TOP), len(known)
