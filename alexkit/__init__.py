"""alexkit: transfer learning and feature extraction with AlexNet.

The Python names, each resolved when it is first used, so that importing alexkit, and with it
``alexkit --help``, loads neither torch nor h5py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexkit.features.store import FeatureStore
    from alexkit.images.opening import open_source
    from alexkit.images.preprocess import Preprocess
    from alexkit.models.zoo import Backbone, load_backbone
    from alexkit.probes.estimator import LinearSVM
    from alexkit.recipes.api import extract, finetune, predict
    from alexkit.recipes.classifier import AlexNetClassifier

__version__ = "0.1.0"

__all__ = [
    "AlexNetClassifier",
    "Backbone",
    "FeatureStore",
    "LinearSVM",
    "Preprocess",
    "__version__",
    "extract",
    "finetune",
    "load_backbone",
    "open_source",
    "predict",
]

_HOMES = {
    "AlexNetClassifier": "alexkit.recipes.classifier",
    "Backbone": "alexkit.models.zoo",
    "FeatureStore": "alexkit.features.store",
    "LinearSVM": "alexkit.probes.estimator",
    "Preprocess": "alexkit.images.preprocess",
    "extract": "alexkit.recipes.api",
    "finetune": "alexkit.recipes.api",
    "load_backbone": "alexkit.models.zoo",
    "open_source": "alexkit.images.opening",
    "predict": "alexkit.recipes.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'alexkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value  # found at once the next time, and by what lists a module's names
    return value
