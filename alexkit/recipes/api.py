"""The commands as Python functions, with the same options by the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexkit.events import Reporter, silent
from alexkit.features.store import FeatureStore
from alexkit.recipes import features
from alexkit.recipes.options import FeaturesOptions, from_values


def extract(
    data: Path | str,
    layers: Sequence[str] | str = ("fc7",),
    *,
    weights: Path | str = "auto",
    out: Path | str | None = None,
    report: Reporter = silent,
    **options: Any,
) -> FeatureStore:
    """``alexkit features``: the layers of every image into one file, which is returned open.

    Features stay in the file until :meth:`FeatureStore.matrix
    <alexkit.features.store.FeatureStore.matrix>` or ``values`` reads them. An interrupted
    call is continued by the same call.

    Args:
        data: whatever the command takes as DATA.
        layers: one name or several.
        weights: a run folder, a file, ``"imagenet"``, ``"random"``, or ``"auto"``: the newest
            run here, else ImageNet's.
        out: the file, e.g. ``"photos.h5"``; None is the next folder in ``runs/``.
        report: hears what the command line shows.
        options: any other option of :class:`alexkit.recipes.options.FeaturesOptions`, e.g.
            ``device="cuda"``, ``dtype="float16"``, ``overwrite=True``.

    Raises:
        AlexkitError: what the command exits with; :class:`alexkit.errors.OutputExists` where
            ``out`` is complete already, which ``FeatureStore.open(out)`` reads.
    """
    named = {
        "data": Path(data),
        "layer": (layers,) if isinstance(layers, str) else tuple(layers),
        "weights": str(weights),
        "out": None if out is None else Path(out),
    }
    result = features.run(from_values(FeaturesOptions, options | named), report)
    return FeatureStore.open(result["file"])
