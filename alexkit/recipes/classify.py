"""Images through a network that classifies: what predict, validate and export share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from alexkit.errors import WeightsMismatch
from alexkit.events import Reporter
from alexkit.features.layout import RowProblem
from alexkit.images.draws import Rows
from alexkit.models.zoo import Backbone
from alexkit.recipes.classes import Outputs, name_outputs
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import choose_backbone
from alexkit.recipes.layers import AnyBackbone
from alexkit.recipes.ledger import Ledger

Probabilities = npt.NDArray[np.float64]

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


@dataclass(frozen=True)
class Classified:
    """What came of a batch.

    Attributes:
        rows: (B) int64.
        probabilities: (B, K) float64, the mean over the views of an image.
        problems: rows without.
    """

    rows: Rows
    probabilities: Probabilities
    problems: tuple[RowProblem, ...]


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


def classify(job: Job, rows: Rows, ledger: Ledger) -> Iterator[Classified]:
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
        yield Classified(
            batch.rows, found.mean(axis=1) if found.ndim == 3 else found, batch.problems
        )
