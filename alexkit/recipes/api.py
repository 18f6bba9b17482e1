"""The commands as Python functions, with the same options by the same names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexkit.events import Reporter, silent
from alexkit.features.store import FeatureStore
from alexkit.recipes import features
from alexkit.recipes import finetune as finetuning
from alexkit.recipes.options import FeaturesOptions, FinetuneOptions, from_values
from alexkit.recipes.predict import Prediction, predictions
from alexkit.recipes.using import PredictOptions


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


def predict(
    images: Path | str | Sequence[Path | str],
    weights: Path | str | Sequence[Path | str] = "auto",
    *,
    report: Reporter = silent,
    **options: Any,
) -> list[Prediction]:
    """``alexkit predict``: what each image is taken for, in the order of the images.

    Args:
        images: files, folders, patterns, lists; one or several.
        weights: a run folder, a file, ``"imagenet"``, or ``"auto"``: the newest run here, else
            ImageNet's; several are an ensemble. A probe that ``eval --save`` wrote works too.
        report: hears what the command line shows, bad images among it.
        options: any other option of :class:`alexkit.recipes.options.PredictOptions`, e.g.
            ``top=3``, ``views="ten"``, ``device="cuda"``.

    Raises:
        AlexkitError: what the command exits with, but that an image that cannot be read is a
            prediction with ``reason``, also where it is the only one.
    """
    named = {"images": _several(images), "weights": _several(weights)}
    return predictions(from_values(PredictOptions, options | named), report)[0]


def _several(names: Path | str | Sequence[Path | str]) -> tuple[str, ...]:
    return (str(names),) if isinstance(names, Path | str) else tuple(map(str, names))


def finetune(
    data: Path | str,
    *,
    weights: Path | str = "auto",
    out: Path | str | None = None,
    report: Reporter = silent,
    **options: Any,
) -> dict[str, Any]:
    """``alexkit finetune``: a pretrained network fitted to a folder of class folders.

    An interrupted call is continued by the same call.

    Args:
        data: whatever the command takes as DATA.
        weights: a run folder, a file, ``"imagenet"``, ``"random"``, or ``"auto"``: the newest
            run here, else ImageNet's.
        out: the run folder; None is the next one in ``runs/``.
        report: hears what the command line shows.
        options: any other option of :class:`alexkit.recipes.options.FinetuneOptions`, e.g.
            ``folds=5``, ``freeze="none"``, ``epochs=10``, ``model="resnet50"``.

    Returns:
        What ``run.json`` has under ``result``: ``top1``, ``top5`` (fractions), ``n`` held-out
        images, and ``run``, the folder with ``weights/best.safetensors``.

    Raises:
        AlexkitError: what the command exits with.
    """
    named = {
        "data": Path(data),
        "weights": str(weights),
        "out": None if out is None else Path(out),
    }
    return finetuning.run(from_values(FinetuneOptions, options | named), report)
