"""The options of every command, as frozen records: names, defaults and help live here once.

The command line, ``--config FILE.toml``, ``run.json`` and the Python API all use these
field names. Imports nothing heavy, so that ``--help`` answers at once.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexkit.choices import (
    Ablate,
    Augment,
    Average,
    Balance,
    Compress,
    Decode,
    Exchange,
    Exif,
    Fall,
    FeatureDtype,
    Figure,
    FitHead,
    Freeze,
    Head,
    Keep,
    Merge,
    Metric,
    Parallel,
    Precision,
    ProbeKind,
    Protocol,
    RecipeName,
)
from alexkit.errors import UsageError
from alexkit.recipes.option_values import from_values as from_values
from alexkit.recipes.option_values import to_record as to_record


def option(
    default: Any,
    text: str,
    metavar: str | None = None,
    *,
    least: float | None = None,
    most: float = math.inf,
) -> Any:
    """A field typed as ``--name`` on the command line, a number from ``least`` to ``most``."""
    told = {"help": text, "metavar": metavar, "argument": False, "least": least, "most": most}
    return dataclasses.field(default=default, metadata=told)


def argument(text: str, metavar: str, default: Any = None) -> Any:
    """A field typed without a name on the command line."""
    return dataclasses.field(
        default=default,
        metadata={"help": text, "metavar": metavar, "argument": True, "least": None},
    )


def exif_option() -> Any:
    """``--exif``, with the same words in every command that decodes images for a network."""
    return option(None, "Camera's orientation tag (default: by weights and data).")


def weights_option() -> Any:
    """``--weights`` of one network, to begin with."""
    return option("auto", "Run folder, weight file, imagenet, random, or auto.", "WEIGHTS")


def views_option() -> Any:
    """``--views``."""
    return option("center", "Squares of each image: center, flip, ten, grid:K.", "WHICH")


@dataclass(frozen=True)
class SharedOptions:
    """What every command takes. ``None`` means: derived, and said aloud.

    Raises:
        UsageError: a number is below the least that makes sense, above the most, or none.
    """

    out: Path | None = option(
        None, "Where outputs go (default: the next folder in runs/).", "PATH"
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:0,1.", "DEVICE")
    batch_size: int | None = option(
        None, "Images a step (default: by device and recipe).", "N", least=1, most=2**20
    )
    workers: int | None = option(
        None, "Decode threads (default: one a core).", "N", least=1, most=1024
    )
    seed: int = option(0, "Seed of everything random.", "N", least=0, most=2**32 - 1)
    strict: bool = option(False, "The first bad image is an error.")
    overwrite: bool = option(False, "Replace a finished output.")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), field.metadata["least"]
            if value is None or least is None:
                continue
            name, most = field.name.replace("_", "-"), field.metadata["most"]
            if not value >= least:
                raise UsageError(f"--{name} {value} is too small", hint=f"the least is {least}")
            if value > most or value == math.inf:
                hint = f"the most is {most}" if most < math.inf else "give a number"
                raise UsageError(f"--{name} {value} is too large", hint=hint)


@dataclass(frozen=True)
class FitOptions(SharedOptions):
    """What `train` and `finetune` share."""

    data: Path | None = argument("Folder of class folders, or a list of images.", "DATA")
    model: str | None = option(None, "Network to build.", "NAME")
    epochs: int | None = option(
        None, "Passes over the training images.", "N", least=1, most=10**6
    )
    lr: float | None = option(None, "Learning rate to begin with.", "RATE", least=0.0)
    deterministic: bool = option(False, "Only kernels that give equal bits on every run.")
    exif: Exif | None = exif_option()
    precision: Precision = option(Precision.FLOAT32, "Number type of products.")
    max_time: float | None = option(
        None, "Minutes of training after which it saves and stops (130).", "MINUTES", least=0.0
    )


@dataclass(frozen=True)
class TrainOptions(FitOptions):
    """Train AlexNet on ImageNet, on two GPUs (or one, or a CPU).

    Example: alexkit train imagenet/ --epochs 90 --device cuda:0,1
    """

    recipe: RecipeName | None = option(None, "How it is trained (default: by network).")
    ablate: Ablate | None = option(None, "Take one thing away from the 2012 network.")
    parallel: Parallel = option(Parallel.AUTO, "How processes share a step; auto measures.")
    exchange: Exchange = option(Exchange.FLOAT32, "Number type sent between processes.")
    head: Head = option(Head.FC, "gap: pool5's means in place of fc6 and fc7 (alexnet-bn).")
    verify_resume: bool = option(
        False,
        "Train nothing: prove, in a minute, that a killed run ends to the bit as another.",
    )


@dataclass(frozen=True)
class FinetuneOptions(FitOptions):
    """Fit a pretrained network to your own image folder.

    Example: alexkit finetune mydata/ --weights imagenet
    """

    weights: str = weights_option()
    freeze: Freeze = option(
        Freeze.AUTO, "What stays: up to this layer; auto: all but a new fc8, less if it helps."
    )
    head: FitHead = option(
        FitHead.AUTO, "rbf, or linear: mean, logistic, svm; all fitted at once. fc: in epochs."
    )
    lr: str | None = option(None, "Learning rate to begin with, or find.", "RATE")  # type: ignore[assignment]
    augment: Augment = option(
        Augment.AUTO, "none, random, or stored: views (mirrored), corners."
    )
    uncached: bool = option(False, "Run the frozen part again at every epoch.")
    folds: int | None = option(None, "Judge all images in K parts: mean ± sd.", "K", least=2)
    balance: Balance = option(Balance.AUTO, "Rare classes weigh more (auto: from 3 to 1).")
    schedule: Fall = option(Fall.COSINE, "How the learning rate falls.")
    patience: int | None = option(None, "Stop after N epochs no better.", "N", least=1)
    mixup: float = option(
        0.0, "Blend training images, e.g. 0.2.", "ALPHA", least=0.0, most=1000.0
    )
    smoothing: float = option(0.0, "Label smoothing, e.g. 0.1.", "SHARE", least=0.0, most=1.0)


@dataclass(frozen=True)
class FeaturesOptions(SharedOptions):
    """Extract named layers into one HDF5 file.

    Example: alexkit features photos/ --layer fc6 --layer fc7
    """

    data: Path | None = argument("Folder or list (default: the last run's data).", "DATA")
    layer: tuple[str, ...] = option(
        ("fc7",), "Layer to store; repeat for more. sift-fv is SIFT's Fisher vectors.", "NAME"
    )
    weights: str = weights_option()
    model: str | None = option(
        None,
        "Network, where the weights do not tell; also torchvision's, e.g. resnet50.",
        "NAME",
    )
    pool: str | None = option(
        None, "Maps made smaller: flat, avg, max, grid:K or 9k (default: whole maps).", "HOW"
    )
    views: str = views_option()
    average: Average = option(Average.NONE, "features: their mean over the views, not each.")
    dtype: FeatureDtype = option(FeatureDtype.FLOAT32, "Number type in the file.")
    compress: Compress = option(
        Compress.NONE, "Filter of the finished file; needs its space twice while it works."
    )
    merge: Merge = option(
        Merge.COPY,
        "Of several processes: one file, or virtual: a file over parts that stay beside it.",
    )
    list_layers: bool = option(False, "Show layers, shapes and bytes an image; needs no DATA.")
    precision: Precision = option(Precision.FLOAT32, "Number type of products.")
    decode: Decode = option(
        Decode.EXACT, "fast: large JPEGs smaller, only the crop resized; says what that moves."
    )
    exif: Exif | None = exif_option()


@dataclass(frozen=True)
class EvalOptions(SharedOptions):
    """Linear SVM probes on extracted features.

    Example: alexkit eval runs/features-001/features.h5 --protocol kfold
    """

    files: tuple[Path, ...] = argument("Feature files (default: the newest).", "FILE", ())
    layer: tuple[str, ...] = option(
        (), "Layer to judge; repeat for more (default: all).", "NAME"
    )
    protocol: Protocol = option(Protocol.AUTO, "How rows are divided, and C is chosen.")
    probe: ProbeKind | None = option(None, "What is fitted (default: the protocol's).")
    norm: str | None = option(
        None,
        "none, l2, power[:P], standardize or pca:K, fitted on training rows (default: the "
        "protocol's).",
        "NORM",
    )
    C: str | None = option(
        None, "C, or those to choose from (default: the protocol's).", "C,C,…"
    )
    shots: int | None = option(None, "Training rows of a class (few-shot).", "K", least=1)
    repeats: int | None = option(None, "Draws of them (default: 5).", "R", least=1, most=10**4)
    curve: str | None = option(None, "Learning curve over shots, e.g. 1,5,10,30.", "K,K,…")
    labels: Path | None = option(
        None, "Several classes a row: CSV path,CLASS,… of 1, -1, 0 (difficult).", "F.csv"
    )
    splits: Path | None = option(None, "Rows divided as in this file.", "F.json")
    save_splits: Path | None = option(None, "Write how rows were divided.", "F.json")
    save: Path | None = option(None, "Write the probe.", "F.safetensors")


@dataclass(frozen=True)
class CompareOptions(SharedOptions):
    """What layers have in common: RDMs, RSA and CKA of every two.

    Example: alexkit compare alexnet.h5 vgg16.h5 --layer fc7
    """

    files: tuple[Path, ...] = argument("Feature files (default: the newest).", "FILE", ())
    layer: tuple[str, ...] = option(
        (), "Layer to compare; repeat for more (default: all).", "NAME"
    )
    metric: Metric = option(Metric.CORRELATION, "Distance between two images.")
    bootstrap: int = option(1000, "Times the images are drawn again.", "N", least=1, most=10**6)


@dataclass(frozen=True)
class NeighboursOptions(SharedOptions):
    """The images of a feature file that are nearest to another, as the network sees them.

    Example: alexkit neighbours photo.jpg features.h5
    """

    query: str | None = argument("Image, folder, pattern; - takes paths from stdin.", "QUERY")
    file: Path | None = argument("Feature file (default: the newest).", "FILE")
    layer: str | None = option(None, "Layer (default: fc7, or the highest).", "NAME")
    metric: Metric = option(Metric.EUCLIDEAN, "Distance between two images.")
    count: int = option(6, "Neighbours to find.", "K", least=1, most=10**6)
    weights: str | None = option(
        None, "Where the file's weights are now (default: where they were).", "WEIGHTS"
    )


@dataclass(frozen=True)
class CheckOptions(SharedOptions):
    """What is in this data and what is wrong with it, before any compute.

    Example: alexkit check mydata/
    """

    data: Path | None = argument("Folder, list, archive or pack.", "DATA")
    images: int = option(10_000, "Images to decode, drawn evenly; 0 is all.", "N", least=0)


@dataclass(frozen=True)
class PackOptions(SharedOptions):
    """Decode and resize once: images into one file that is read as it lies.

    Example: alexkit pack imagenet/ --out imagenet.pack
    """

    data: Path | None = argument("Folder, list or archive.", "DATA")
    size: int = option(
        256, "Pixels of the short side and the centre square.", "N", least=8, most=8192
    )
    keep: Keep = option(Keep.PIXELS, "pixels: exact; jpeg: a seventh the size, not exact.")
    quality: int | None = option(
        None, "JPEG quality, 1 to 100 (default: 90).", "N", least=1, most=100
    )
    exif: Exif = option(Exif.IGNORE, "Camera's orientation tag.")


@dataclass(frozen=True)
class InfoOptions(SharedOptions):
    """What a file is: features, weights, a pack or a run folder.

    Example: alexkit info runs/features-001/features.h5 --verify 50
    """

    path: Path | None = argument("File or run folder.", "FILE")
    rows: bool = option(False, "The rows of a feature file; CSV in a pipe.")
    verify: bool = option(
        False, "Check every block of a pack; extract rows of a feature file again."
    )
    images: int = option(
        20, "Rows to extract again, drawn at random; 0 is all. Short: --verify N.", "N", least=0
    )
    data: Path | None = option(
        None, "Where the images of a feature file are now (default: where they were).", "DATA"
    )
    weights: str | None = option(
        None, "Where the file's weights are now (default: where they were).", "WEIGHTS"
    )


@dataclass(frozen=True)
class ReportOptions(SharedOptions):
    """The report of a run, several runs side by side, or a figure of the paper.

    Example: alexkit report runs/finetune-001 runs/finetune-002
    """

    runs: tuple[Path, ...] = argument(
        "Run folders, feature or weight files (default: the newest run).", "RUN", ()
    )
    figure: Figure | None = option(
        None, "conv1's kernels, or images with the nearest in fc7; as PNG and SVG."
    )
    layer: str | None = option(
        None, "Layer of the map and the neighbours (default: fc7, or the highest).", "NAME"
    )
    data: Path | None = option(
        None, "Where the images are now (default: where they were).", "DATA"
    )
    umap: bool = option(False, 'Also a map by UMAP (pip install "alexkit[umap]").')


@dataclass(frozen=True)
class DoctorOptions(SharedOptions):
    """Devices, decoder, versions, golden features: is this installation right.

    Example: alexkit doctor
    """


@dataclass(frozen=True)
class DemoOptions(SharedOptions):
    """The whole story on data that ships inside a dependency, no network.

    Example: alexkit demo
    """
