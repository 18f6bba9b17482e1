"""Images through a network that classifies: what predict, validate and export share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from alexkit.errors import WeightsMismatch
from alexkit.events import Reporter, Stage
from alexkit.images.draws import Rows
from alexkit.models.zoo import Backbone
from alexkit.recipes.classes import Outputs, name_outputs
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import choose_backbone
from alexkit.recipes.layers import AnyBackbone
from alexkit.recipes.ledger import Ledger

Scores = npt.NDArray[np.float64]
Scored = tuple[Rows, Scores, int]
"""Of a batch the rows that could be read, their (B, K) scores, and how many images it had."""

NOT_CLASSIFIED = "not classified"


@dataclass(frozen=True)
class Classifier:
    """A network with logits, and what they are of.

    Attributes:
        backbone: the network and its preprocessing.
        layer: the one with the logits, (K) of an image.
        outputs: what the K are called.
    """

    backbone: AnyBackbone
    layer: str
    outputs: Outputs


def choose_classifier(
    model: str | None, weights: str, class_map: Path | None, seed: int, report: Reporter
) -> Classifier:
    """Loads the network that ``--weights`` and ``--model`` mean.

    Raises:
        WeightsMismatch: it has no classifier.
        AlexkitError: see :func:`alexkit.recipes.inputs.choose_backbone` and
            :func:`alexkit.recipes.classes.name_outputs`.
    """
    return classifier_of(choose_backbone(model, weights, seed, report), class_map, report)


def classifier_of(
    backbone: AnyBackbone, class_map: Path | None, report: Reporter
) -> Classifier:
    """See :func:`choose_classifier`."""
    net = backbone.net
    if isinstance(backbone, Backbone):
        layer = "fc8"
        if layer not in net.layer_shapes():
            raise WeightsMismatch(
                f"{backbone.source} has no classifier, it lacks {', '.join(backbone.missing)}",
                hint="alexkit finetune DATA --weights … fits one to your images",
            )
    else:
        layer = backbone.net.logits_node
    count = prod(net.layer_shapes()[layer])
    outputs = name_outputs(count, backbone.classes, class_map, backbone.source, report)
    return Classifier(backbone, layer, outputs)


def classify(job: Job, rows: Rows, ledger: Ledger) -> Iterator[Scored]:
    """The probabilities of ``rows``: the softmax of each view's logits, averaged (paper §4.1).

    Args:
        job: of the layer with the logits, float32, its views apart.
        ledger: hears of bad and repaired images.
    """
    (layer,) = job.stored.shapes
    for batch in job.features(rows):
        ledger.add_batch(job.source, batch, NOT_CLASSIFIED)
        logits = batch.values.get(layer, np.empty((0, *job.stored.shapes[layer]), np.float32))
        found = softmax(logits.astype(np.float64), axis=-1)
        found = found.mean(axis=1) if found.ndim == 3 else found
        yield batch.rows, found, len(batch.rows) + len(batch.problems)


def gather(
    scored: Iterable[Scored], rows: Rows, classes: int, name: str, report: Reporter
) -> tuple[Scores, npt.NDArray[np.bool_]]:
    """(n, K) scores of ``rows``, which ascend, and which of them have any; told as a stage."""
    scores, there = np.zeros((len(rows), classes)), np.zeros(len(rows), bool)
    with Stage(report, name, len(rows), "images") as stage:
        for some, values, images in scored:
            at = np.searchsorted(rows, some)
            scores[at], there[at] = values, True
            stage.advance(images)
    return scores, there
