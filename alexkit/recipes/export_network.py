"""A trained network for other programs: ONNX, or a plain state dict, checked on images."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from alexkit.choices import OnnxInput
from alexkit.errors import DataError, FileMismatch, UsageError
from alexkit.events import Chosen, Note, Reporter, Saved, Warned, silent
from alexkit.images.batches import read_batches
from alexkit.images.opening import open_source
from alexkit.images.preprocess import Preprocess
from alexkit.models.onnx_files import onnx_runner, write_onnx
from alexkit.models.weights import file_sha256, write_weights
from alexkit.models.zoo import load_any, read_torchvision, torchvision_form
from alexkit.recipes.classify import Classifier, choose_classifier
from alexkit.recipes.devices import decode_threads
from alexkit.recipes.inputs import FITTED
from alexkit.recipes.layers import AnyBackbone
from alexkit.recipes.out_file import check_out
from alexkit.recipes.run_dir import RECORD, read_record, write_json
from alexkit.recipes.space import need
from alexkit.recipes.using import ExportOptions
from alexkit.whole_file import MAKE_ROOM, writing

SUFFIXES = (".onnx", ".pth", ".pt", ".safetensors")
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".caffemodel", ".onnx")
TOLERANCE = 1e-5
"""Of probabilities, from 0 to 1, between torch and what was written."""
BATCH = 16

Pixels = npt.NDArray[np.uint8]
Run = Callable[[Pixels], npt.NDArray[np.float32]]


def is_network(path: Path) -> bool:
    """Whether a path is a run of ``train`` or ``finetune``, or a weight file."""
    if path.is_dir():
        return (path / RECORD).exists() and read_record(path)["command"] in FITTED
    return path.suffix.lower() in WEIGHT_FILES


def run(options: ExportOptions, report: Reporter) -> dict[str, Any]:
    """Writes the network of ``options.path`` in the format that ``--out`` ends in, and a
    ``.json`` beside it with its classes, its preprocessing and what the check found.

    ``.onnx``: logits and probabilities, any number of images a batch. ``.pth``: torchvision's
    own names where torchvision has the network, else ours. ``.safetensors``: as a run has it.
    The file is read again, by onnxruntime or torchvision where it is for them, and must give
    the probabilities of the network to :data:`TOLERANCE`; otherwise it is removed.

    Raises:
        UsageError: another format, or the extra ``onnx`` is not installed.
        OutputExists: the file is there, and no ``--overwrite``.
        FileMismatch: it does not give the probabilities of the network.
        OutOfSpace: the disk is full or cannot be written.
    """
    assert options.path is not None
    began = time.monotonic()
    out = options.out
    if out is None:
        folder = options.path if options.path.is_dir() else options.path.parent
        out = folder / f"{options.path.stem}.onnx"
        report(Chosen("out", str(out), "beside the weights"))
    _check_out(out, options)
    chosen = choose_classifier(
        options.model, str(options.path), options.class_map, options.seed, report
    )
    backbone = chosen.backbone
    backbone.net.eval()
    pixels = _pixels(options, backbone.preprocess, report)
    partial = out.with_name(f".{out.name}.partial{out.suffix}")
    sidecar = out.with_name(out.name + ".json")
    try:
        with writing(out, MAKE_ROOM):
            out.parent.mkdir(parents=True, exist_ok=True)
            form, again = _written(partial, chosen, options)
            largest = _compare(backbone, again, pixels, out)
            # Last the network itself: under its name it has all that belongs to it.
            write_json(sidecar, _record(chosen, form, partial, len(pixels), largest))
            partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    report(Note(f"probabilities differ by {largest:.1e} at most on {len(pixels)} images"))
    report(Saved("exported", str(out)))
    return {
        "file": str(out),
        "sidecar": str(sidecar),
        "model": backbone.name,
        "classes": len(chosen.outputs.names),
        "form": form,
        "checked": len(pixels),
        "largest_difference": largest,
        "bytes": out.stat().st_size,
        "seconds": time.monotonic() - began,
    }


def _check_out(out: Path, options: ExportOptions) -> None:
    assert options.path is not None
    if out.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{out} is in no format known here for a network",
            hint=f"it ends in {', '.join(SUFFIXES)}; .npz and .csv are for feature files",
        )
    if options.layer:
        raise UsageError("--layer is for feature files", hint="leave it out for a network")
    if options.input is OnnxInput.PIXELS and out.suffix.lower() != ".onnx":
        raise UsageError("--input pixels is for ONNX", hint="let --out end in .onnx")
    check_out(out, options.overwrite, options.path)


def _written(path: Path, chosen: Classifier, options: ExportOptions) -> tuple[str, Run]:
    """Writes the file; what form it has, and a function that computes with what is in it."""
    backbone, preprocess = chosen.backbone, chosen.backbone.preprocess
    named = dataclasses.replace(backbone, classes=_names(chosen))
    state = backbone.net.canonical_state_dict()
    needed = sum(t.numel() * t.element_size() for t in state.values())
    need(
        path.parent,
        needed,
        f"a file in {path.parent}",
        "free some space or choose another --out",
    )
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        pixels = options.input is OnnxInput.PIXELS
        metadata = named.metadata() | {"input": options.input.value}
        write_onnx(path, backbone.net, preprocess, metadata, pixels=pixels)
        run_onnx = onnx_runner(path)
        told = "RGB squares (N, S, S, 3) uint8" if pixels else "normalised (N, 3, S, S) float32"
        if pixels:
            return f"ONNX, input {told}", run_onnx
        return f"ONNX, input {told}", lambda squares: run_onnx(_normal(squares, preprocess))
    if suffix == ".safetensors":
        write_weights(path, state, named.metadata())
    else:
        name, theirs = torchvision_form(backbone)
        write_pth(path, theirs)
        if name is not None:
            net = read_torchvision(name, path)
            form = f"state dict of torchvision's {name}"
            return form, lambda squares: _probabilities(net, squares, preprocess)
    again = load_any(backbone.name, path, seed=0).net.eval()
    form = "state dict, canonical names"
    return form, lambda squares: _probabilities(again, squares, preprocess)


def write_pth(path: Path, state: Mapping[str, torch.Tensor]) -> None:
    """Writes a state dict as torch does, in its own copy of each tensor.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with path.open("wb") as file:
            torch.save({key: tensor.detach().clone() for key, tensor in state.items()}, file)
    except RuntimeError as error:
        # Of a full disk torch says only that it stands at another byte than it thought.
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def _names(chosen: Classifier) -> tuple[str, ...]:
    """What the outputs are called; none where nothing says so."""
    return chosen.outputs.names if chosen.outputs.aliases else ()


def _normal(squares: Pixels, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    return preprocess.normalise(torch.from_numpy(squares)).contiguous().numpy()


@torch.inference_mode()
def _probabilities(
    net: torch.nn.Module, squares: Pixels, preprocess: Preprocess
) -> npt.NDArray[np.float32]:
    x = preprocess.normalise(torch.from_numpy(squares))
    return np.asarray(net.eval()(x).softmax(dim=1).numpy(), np.float32)


def _compare(backbone: AnyBackbone, again: Run, pixels: Pixels, out: Path) -> float:
    """The largest difference of a probability.

    Raises:
        FileMismatch: it is above :data:`TOLERANCE`.
    """
    largest = 0.0
    for first in range(0, len(pixels), BATCH):
        squares = pixels[first : first + BATCH]
        want = _probabilities(backbone.net, squares, backbone.preprocess)
        largest = max(largest, float(np.abs(again(squares) - want).max()))
    if not largest <= TOLERANCE:
        raise FileMismatch(
            f"what was written for {out} gives other probabilities than the network, by "
            f"{largest:.1e}; it was removed",
            hint="another version of torch or onnxruntime may write it right",
        )
    return largest


def _pixels(options: ExportOptions, preprocess: Preprocess, report: Reporter) -> Pixels:
    """(n, S, S, 3): squares of the run's own images, of ``--data``, or else noise."""
    data, path = options.data, options.path
    if data is None and path is not None and path.is_dir():
        told = (read_record(path).get("data") or {}).get("path")
        data = Path(told) if told and Path(told).exists() else None
    if data is None:
        report(Warned("checked on noise, as there are no images: --data names some"))
        rng = np.random.default_rng(options.seed)
        shape = (BATCH, preprocess.crop, preprocess.crop, 3)
        return rng.integers(0, 256, shape, np.uint8)
    source = open_source(data, silent)
    count = min(options.images, len(source))
    rows = np.unique(np.linspace(0, len(source) - 1, count).round().astype(np.int64))
    batches = read_batches(
        source,
        rows,
        preprocess.square,
        batch_size=BATCH,
        threads=decode_threads(options.workers),
        exif=preprocess.exif,
    )
    found = np.concatenate([batch.pixels.numpy() for batch in batches])
    if not len(found):
        raise DataError(
            f"none of {len(rows)} images of {data} could be read", hint="name others: --data"
        )
    report(Chosen("checked on", f"{len(found)} images of {data}", "evenly drawn"))
    return found


def _record(
    chosen: Classifier, form: str, file: Path, checked: int, largest: float
) -> dict[str, Any]:
    backbone = chosen.backbone
    return {
        "model": backbone.name,
        "form": form,
        "classes": list(_names(chosen)),
        "preprocess": backbone.preprocess.to_record(),
        "weights": {"source": backbone.source, "sha256": backbone.sha256},
        "sha256": file_sha256(file),
        "checked": {"images": checked, "largest_difference": largest},
    }
