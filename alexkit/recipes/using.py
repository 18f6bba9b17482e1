"""The options of what uses a finished network: predict, validate, export."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexkit.choices import Exif, OnnxInput
from alexkit.recipes.options import SharedOptions, argument, exif_option, option, views_option


def _networks_option() -> Any:
    return option(
        ("auto",),
        "Run folder, weight file, imagenet, or auto; repeat it for an ensemble.",
        "WEIGHTS",
    )


def _class_map_option() -> Any:
    return option(
        None,
        "What the outputs are, in order: a name a line, or n01440764 : tench, …",
        "FILE",
    )


@dataclass(frozen=True)
class PredictOptions(SharedOptions):
    """Class probabilities of images, from a trained or fine-tuned network or a saved probe.

    Example: alexkit predict photo.jpg holiday/ --top 3
    """

    images: tuple[str, ...] = argument(
        "Files, folders, patterns, lists; - takes paths from stdin.", "IMAGE", ()
    )
    weights: tuple[str, ...] = _networks_option()
    model: str | None = option(None, "Network, where the weights do not tell.", "NAME")
    top: int | None = option(None, "Classes to name an image (default: 5).", "K", least=1)
    csv: bool = option(False, "CSV on stdout; --out F.csv or F.json writes a file.")
    views: str = views_option()
    class_map: Path | None = _class_map_option()
    exif: Exif | None = option(None, "Camera's orientation tag (default: apply).")


@dataclass(frozen=True)
class ValidateOptions(SharedOptions):
    """Top-1 and top-5 of trained networks: centre crop, ten views, ensembles.

    Example: alexkit validate mydata/ --weights runs/train-001 --views ten
    """

    data: Path | None = argument("Labelled images (default: the last run's data).", "DATA")
    weights: tuple[str, ...] = _networks_option()
    model: str | None = option(None, "Network, where the weights do not tell.", "NAME")
    split: str | None = option(
        None,
        "val, test, train or all (default: val, test, or what is new to the run).",
        "SPLIT",
    )
    views: str = views_option()
    class_map: Path | None = _class_map_option()
    resize: int | None = option(
        None, "Pixels of the short side (default: the weights').", "N", least=8, most=8192
    )
    crop: int | None = option(
        None,
        "Pixels of the square that is seen (default: the weights').",
        "N",
        least=8,
        most=8192,
    )
    exif: Exif | None = exif_option()


@dataclass(frozen=True)
class ExportOptions(SharedOptions):
    """A network as ONNX or state dict, checked; a feature file as .npz, its rows as .csv.

    --out F.onnx, F.pth (torchvision's names where it has the network) or F.safetensors.
    MATLAB, Octave, R and Julia read the .h5 as it is: a .mat of version 7.3 is HDF5 too.

    Example: alexkit export runs/finetune-001 --out flowers.onnx --input pixels
    """

    path: Path | None = argument("Run folder, weight file or feature file.", "RUN")
    layer: tuple[str, ...] = option(
        (), "Layer of a feature file; repeat for more (default: all).", "NAME"
    )
    input: OnnxInput = option(
        OnnxInput.TENSOR,
        "pixels: RGB squares, uint8, normalised inside the ONNX graph.",
    )
    data: Path | None = option(
        None, "Images to check a network on (default: the run's data).", "DATA"
    )
    images: int = option(32, "How many images to check it on.", "N", least=1)
    model: str | None = option(None, "Network, where the weights do not tell.", "NAME")
    class_map: Path | None = _class_map_option()
