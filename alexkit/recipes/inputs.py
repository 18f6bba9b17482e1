"""Inputs the user left out, taken from the newest finished run that can supply them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from alexkit.choices import WEIGHT_WORDS, Split
from alexkit.errors import DataError, UsageError
from alexkit.events import Chosen, Note, Reporter, Warned
from alexkit.images.draws import Rows
from alexkit.images.opening import open_source
from alexkit.images.packed import JpegPack, PackSource
from alexkit.images.preprocess import Preprocess
from alexkit.images.source import NO_LABEL, ImageSource, in_splits
from alexkit.models.specs import is_ours
from alexkit.models.zoo import Backbone, load_any
from alexkit.recipes.run_dir import RUNS, read_record, runs_here

FITTED = ("train", "finetune")
WEIGHTS_FILE = Path("weights") / "best.safetensors"
FEATURES_FILE = "features.h5"
FILE_SUFFIXES = (".h5", ".hdf5")
"""Of a feature file that ``--out`` names."""

if TYPE_CHECKING:
    from alexkit.models.torchvision_nets import TorchvisionBackbone

Number = TypeVar("Number", int, float)


def choose_data(data: Path | None, example: str, report: Reporter) -> Path:
    """``data``, or the data of the newest finished ``train`` or ``finetune``.

    Raises:
        UsageError: nothing was given and there is no such run; the hint is ``example``.
    """
    if data is not None:
        return data
    for folder in runs_here(FITTED, state="done"):
        chosen = Path(read_record(folder)["data"]["path"])
        report(Chosen("data", str(chosen), f"the data of {folder}"))
        return chosen
    raise UsageError("no data was named", hint=f"type: {example}")


def open_data(data: Path, report: Reporter) -> ImageSource:
    """Opens a source and tells what was ignored or guessed."""
    source = open_source(data, report)
    for note in source.notes:
        report(Note(note))
    return source


def tell_pack(source: ImageSource, preprocess: Preprocess, report: Reporter) -> None:
    """Warns where a pack holds other pixels than ``preprocess`` makes of the originals."""
    if isinstance(source, JpegPack):
        report(
            Note(
                f"{source.root} holds {source.holds}: near what the network would get from the"
                " originals, not equal"
            )
        )
    if isinstance(source, PackSource) and (told := source.differences(preprocess)):
        report(
            Warned(
                f"{source.root} was packed with {', '.join(told)}: its pixels are not those"
                " the network would get from the originals"
            )
        )


def settled(
    name: str, asked: Number | None, derived: Number, rule: str, report: Reporter
) -> Number:
    """What the user asked for, or else ``derived``, said with its rule."""
    if asked is not None:
        return asked
    report(Chosen(name, f"{derived:g}", rule))
    return derived


def data_record(source: ImageSource) -> dict[str, Any]:
    """What ``run.json`` keeps of a source: enough to find it again and to see if it changed."""
    return {
        "root": source.root,
        "kind": source.kind,
        "images": len(source),
        "classes": list(source.classes),
        "fingerprint": source.fingerprint(),
    }


def choose_weights(weights: str, report: Reporter) -> Path | str:
    """What ``--weights`` means: a file, ``"imagenet"`` or ``"random"``.

    ``auto`` is the newest finished ``train`` or ``finetune`` here, else ``imagenet``; a run
    folder is its best weights.

    Raises:
        UsageError: a path that is not there, or a run folder without weights.
    """
    if weights == "auto":
        for folder in runs_here(FITTED, state="done"):
            if (folder / WEIGHTS_FILE).is_file():
                report(Chosen("weights", str(folder / WEIGHTS_FILE), "the newest run here"))
                return folder / WEIGHTS_FILE
        report(Chosen("weights", "imagenet", "no finished run in runs/"))
        return "imagenet"
    if weights in WEIGHT_WORDS:
        return weights
    path = Path(weights)
    if path.is_dir():
        if not (path / WEIGHTS_FILE).is_file():
            raise UsageError(
                f"{path} holds no {WEIGHTS_FILE}", hint="name a train or finetune run folder"
            )
        return path / WEIGHTS_FILE
    if not path.is_file():
        raise UsageError(
            f"--weights {weights} is no file", hint=f"use a path or {', '.join(WEIGHT_WORDS)}"
        )
    return path


def choose_backbone(
    model: str | None, weights: str, seed: int, report: Reporter, *, headless: bool = False
) -> Backbone | TorchvisionBackbone:
    """Loads the network that ``--weights`` and ``--model`` mean, and says which it is.

    With ``auto``, torchvision's networks have their own published weights; ``headless`` is as
    in :func:`alexkit.models.torchvision_nets.load_torchvision`.
    """
    if weights == "auto" and model is not None and not is_ours(model):
        report(Chosen("weights", "imagenet", f"torchvision's default weights of {model}"))
        weights = "imagenet"
    chosen = choose_weights(weights, report)
    backbone = load_any(model, chosen, seed=seed, headless=headless, report=report)
    report(
        Chosen("network", backbone.name, f"weights {backbone.source} {backbone.sha256[:12]}")
    )
    headed = isinstance(backbone, Backbone) and backbone.net.fc8 is not None
    if backbone.missing and not headed:  # a fine-tuned fc8 may read pool5, without fc6 and fc7
        report(Note(f"the weights have no classifier: {', '.join(backbone.missing)}"))
    return backbone


def choose_feature_files(files: tuple[Path, ...], report: Reporter) -> tuple[Path, ...]:
    """``files``, or the feature file of the newest finished ``features`` run.

    Raises:
        UsageError: nothing was given and there is none.
    """
    if files:
        return files
    for folder in runs_here(("features",), state="done"):
        path = Path(read_record(folder)["result"]["file"])
        path = path if path.is_absolute() else RUNS.parent / path
        if path.is_file():
            report(Chosen("features", str(path), "the newest features run"))
            return (path,)
    raise UsageError(
        "no feature file was named, and runs/ has none", hint="type: alexkit features DATA"
    )


@dataclass(frozen=True)
class Holdout:
    """Rows to learn from and rows to judge by, (n) int64 each in source order, and what the
    second are called."""

    train: Rows
    judged: Rows
    split: Split


def holdout(source: ImageSource, *, fraction: float, seed: int, report: Reporter) -> Holdout:
    """Judges by the source's own ``val`` (or else ``test``) rows, or by a stratified share.

    Of a class with n labelled rows, round(n * ``fraction``) are held out, but at least one
    and never the last one left to train on.

    Raises:
        DataError: no labelled rows, fewer than two classes, or no row left to judge by.
    """
    labels = np.asarray(source.labels)
    labelled = labels != NO_LABEL
    if not labelled.any():
        raise DataError(
            f"{source.root} has no labels",
            hint="put each class's images into a folder named after it",
        )
    present = np.unique(labels[labelled])
    if len(present) < 2:
        only = source.classes[int(present[0])]
        raise DataError(
            f"{source.root} has one class only, {only!r}",
            hint="name the folder that holds the class folders, and have two of them",
        )
    train = labelled & in_splits(source.splits, Split.TRAIN, Split.NONE)
    for split in (Split.VAL, Split.TEST):
        judged = labelled & in_splits(source.splits, split)
        if judged.any():
            return Holdout(np.flatnonzero(train), np.flatnonzero(judged), split)
    rng = np.random.default_rng(seed)
    held: list[Rows] = []
    for label in np.unique(labels[train]):
        rows = np.flatnonzero(train & (labels == label))
        count = min(max(1, round(len(rows) * fraction)), len(rows) - 1)
        held.append(rng.permutation(rows)[:count])
    judged_rows = np.sort(np.concatenate(held))
    if not len(judged_rows):
        raise DataError(
            f"{source.root} has one image a class, so none can be held out",
            hint="add images, or a val folder beside train",
        )
    report(
        Chosen(
            "held out",
            f"{len(judged_rows)} images",
            f"{fraction:.0%} of each class, seed {seed}",
        )
    )
    return Holdout(np.setdiff1d(np.flatnonzero(train), judged_rows), judged_rows, Split.VAL)
