"""What a feature file was made with, so that more can be made the same way."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from alexkit.choices import Average, Compress, FeatureDtype, Precision
from alexkit.errors import DataError, UsageError, WeightsMismatch
from alexkit.events import Reporter
from alexkit.features.fisher import SIFT_FV
from alexkit.features.opening import damaged
from alexkit.features.pooling import Pooling
from alexkit.features.store import FeatureStore
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import ImageSource
from alexkit.images.views import Views
from alexkit.models.zoo import load_any
from alexkit.recipes.extraction import Job
from alexkit.recipes.inputs import choose_weights
from alexkit.recipes.layers import AnyBackbone, Stored
from alexkit.recipes.run_dir import now, versions


def provenance_of(job: Job, data: Path | None = None) -> dict[str, Any]:
    """Format 1's provenance. A file is continued only by a command of equal fingerprint.

    Args:
        data: what was named as DATA; None where nobody will ask for the images again.
    """
    source, backbone, stored = job.source, job.backbone, job.stored
    preprocessing = backbone.preprocess.to_record() | {"views": str(stored.views)}
    fixed = {
        "model": backbone.name,
        "weights": backbone.sha256,
        "preprocessing": preprocessing,
        "data": source.fingerprint(),
        **stored.fingerprint(),
    }
    # A weight file is named so that it is found from anywhere; random weights as they are told.
    file = os.path.isfile(backbone.source)
    origin = os.path.abspath(backbone.source) if file else backbone.source
    return {
        "fingerprint": fixed,
        **fixed,
        "weights": {"source": origin, "sha256": backbone.sha256},
        "stored_views": stored.stored_views,
        **circumstances(source, data, ", ".join(map(str, job.devices))),
    }


def circumstances(source: ImageSource, data: Path | None, device: str) -> dict[str, Any]:
    """Of a provenance what is told of every file, whatever made its values."""
    where = {} if data is None else {"path": os.path.abspath(data)}
    return {
        "versions": versions(),
        "data": {"root": source.root, "kind": source.kind, **where},
        "device": device,
        "command_line": sys.argv[1:],
        "started": now(),
    }


_RANDOM = re.compile(r"random, seed (\d+)")


def network_of(store: FeatureStore, weights: str | None, report: Reporter) -> AnyBackbone:
    """The network and preprocessing that the file was made with, with its layers.

    Args:
        weights: where they are now; None is where they were.

    Raises:
        DataError: they are not where they were.
        WeightsMismatch: they are not those the file was made with.
        DamagedFile: the file does not say what it was made with.
        UsageError: it was made by no network.
    """
    if SIFT_FV in store.layers:
        raise UsageError(
            f"{store.path} holds {SIFT_FV}, and only features of networks are computed again",
            hint="make the file again with the command that `alexkit info` shows, and compare",
        )
    try:
        made = dict(store.provenance["fingerprint"])
        model, sha256 = str(made["model"]), str(made["weights"])
        recorded = dict(made["preprocessing"])
        del recorded["views"]
        preprocess = Preprocess.from_record(recorded)
        origin = str(store.provenance["weights"]["source"])
    except (LookupError, TypeError, ValueError) as error:
        raise damaged(store.path, "does not say what it was made with") from error
    drawn = _RANDOM.fullmatch(origin)
    if weights is None and drawn:
        backbone = load_any(model, "random", seed=int(drawn[1]))
    elif weights is None and not Path(origin).is_file():
        raise DataError(
            f"{store.path} was made with the weights {origin}, which are not there any more",
            hint="say where they are now: --weights WEIGHTS",
        )
    else:
        chosen = choose_weights(weights or origin, report)
        backbone = load_any(model, chosen, seed=0, report=report)
    if backbone.sha256 != sha256:
        raise WeightsMismatch(
            f"{backbone.source} is {backbone.sha256[:12]}, and {store.path} was made with"
            f" weights {sha256[:12]}",
            hint="name the weights it was made with: --weights WEIGHTS",
        )
    backbone.preprocess = preprocess
    backbone.resolve_layers(list(store.layers))
    return backbone


def stored_of(store: FeatureStore) -> Stored:
    """What the file holds of each image.

    Raises:
        DamagedFile: the file does not say.
    """
    try:
        made = dict(store.provenance["fingerprint"])
        pooling = Pooling.parse(str(made["pool"]))
        views = Views.parse(str(made["preprocessing"]["views"]))
        average = Average(made["average"]) is Average.FEATURES
        precision = Precision(made["precision"])
    except (LookupError, TypeError, ValueError, UsageError) as error:
        raise damaged(store.path, "does not say what it was made with") from error
    dtype = FeatureDtype(store.dtype.name)
    return Stored(store.layers, pooling, views, average, dtype, Compress.NONE, precision)
