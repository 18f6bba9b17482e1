"""Weights in files: read without running what is in them, named canonically, checked.

Canonical names and shapes are in :mod:`alexkit.models.layered`. A file of ours is
safetensors with these names and string metadata; torch's ``.pth`` and torchvision's,
Caffe's and ONNX' names for the same tensors are read too.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors import SafetensorError
from torch import Tensor

from alexkit.errors import DamagedFile, DataError, WeightsMismatch
from alexkit.models.caffemodel import read_caffemodel
from alexkit.models.layered import CLASSIFIER, LayeredNet, without_data
from alexkit.models.onnx_files import read_onnx
from alexkit.models.tensorfile import sync_folder, write_tensors
from alexkit.whole_file import MAKE_ROOM, whole_file, writing

State = dict[str, Tensor]

TORCHVISION_LAYERS = {
    "features.0": "conv1",
    "features.3": "conv2",
    "features.6": "conv3",
    "features.8": "conv4",
    "features.10": "conv5",
    "classifier.1": "fc6",
    "classifier.4": "fc7",
    "classifier.6": "fc8",
}
"""Modules of ``torchvision.models.alexnet`` that hold tensors, and their layers."""

_CAFFE_NAME = re.compile(r"(conv[1-5]|fc[678])_([wb])(?:_0)?")
_CAFFE_TENSORS = {"w": "weight", "b": "bias"}
_WRAPPERS = ("module", "_orig_mod")
"""Parts that DataParallel, DistributedDataParallel and torch.compile put into names."""

_FOREIGN = {".caffemodel": read_caffemodel, ".onnx": read_onnx}
"""Files whose own beginning tells little, by their ending."""

_NESTED = ("state_dict", "model")
"""Where training scripts put the state dict inside a checkpoint."""

LISTED = 8
"""Names that a message lists; more are counted."""
MADE_WITH = "name the network they were made with: --model NAME"


def canonical_name(name: str) -> str:
    """The canonical form of a tensor's name; one that is not known is returned as it is."""
    name = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
    caffe = _CAFFE_NAME.fullmatch(name)
    if caffe:
        return f"{caffe[1]}.{_CAFFE_TENSORS[caffe[2]]}"
    module, _, tensor = name.rpartition(".")
    return f"{TORCHVISION_LAYERS[module]}.{tensor}" if module in TORCHVISION_LAYERS else name


def torchvision_names(state: Mapping[str, Tensor]) -> State:
    """A canonical state of ``alexnet-owt`` under torchvision's names, in its order."""
    modules = {layer: module for module, layer in TORCHVISION_LAYERS.items()}
    renamed = {}
    for name, tensor in state.items():
        layer, _, rest = name.partition(".")
        renamed[f"{modules[layer]}.{rest}"] = tensor
    return renamed


def read_state(path: Path) -> tuple[State, dict[str, str]]:
    """Reads a weight file of AlexNet.

    Returns:
        The tensors, on the CPU, by canonical name, and the file's metadata; of Caffe's
        networks see :func:`alexkit.models.caffemodel.read_caffemodel`.

    Raises:
        DataError: the file cannot be opened.
        DamagedFile: it is truncated, or no state dict; a pickle is never executed.
    """
    state, metadata = read_tensors(path)
    renamed: State = {}
    for name, tensor in state.items():
        canonical = canonical_name(name)
        if canonical in renamed:
            raise DamagedFile(
                f"{path} holds {canonical} twice, once as {name}", hint="keep one of the two"
            )
        renamed[canonical] = tensor
    return renamed, metadata


def read_tensors(path: Path) -> tuple[State, dict[str, str]]:
    """:func:`read_state`, with the names as they are in the file. A ``.caffemodel`` and an
    ``.onnx`` go by their ending, what other kind of file it is, its content says."""
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}",
            hint="name a weight file, .safetensors or .pth",
        ) from error
    read = _FOREIGN.get(path.suffix.lower())
    if read is not None:
        return read(path)
    # safetensors: eight bytes that say how long the JSON is, then the JSON.
    if head[8:] == b"{":
        return _read_safetensors(path)
    return _read_torch(path), {}


def read_metadata(path: Path) -> dict[str, str]:
    """A safetensors file's metadata, without its tensors; none of another file, or of one
    that :func:`read_tensors` cannot read either."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError):
        return {}


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(  # noqa: SIM118
                file.metadata() or {}
            )
    except SafetensorError as error:
        raise DamagedFile(
            f"{path} is a damaged safetensors file: {error}",
            hint="copy or download it again, or use the checkpoint before it",
        ) from error


def _read_torch(path: Path) -> State:
    try:
        # From an open file, as torch goes by the name's ending; what it has to say about odd
        # pickles ends in an error here anyway.
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        objects = f" ({found[1]})" if found else ""
        raise DamagedFile(
            f"{path} holds more than tensors{objects} or is damaged; nothing in it was run",
            hint="save the tensors alone: torch.save(model.state_dict(), FILE)",
        ) from error
    # Cut or altered bytes can end in nearly any exception of the unpickler or zip reader.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DamagedFile(
            f"{path} is damaged or no weight file: {reason}",
            hint="copy or download it again",
        ) from error
    return _state_in(loaded, path)


def _state_in(loaded: Any, path: Path) -> State:
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping) or not loaded:
        raise DamagedFile(
            f"{path} holds no state dict",
            hint="save one with torch.save(model.state_dict(), FILE)",
        )
    for name, tensor in loaded.items():
        dense = isinstance(tensor, Tensor) and tensor.layout == torch.strided
        if not isinstance(name, str) or not dense or tensor.is_quantized:
            raise DamagedFile(
                f"{path} is no state dict: {name!r} is no plain tensor",
                hint="save one with torch.save(model.state_dict(), FILE)",
            )
    return dict(loaded)


def fit_state(
    net: LayeredNet,
    state: Mapping[str, Tensor],
    *,
    what: str = "the weights do not fit the network",
    hint: str = MADE_WITH,
) -> tuple[str, ...]:
    """Copies a canonical state into ``net``, which must have exactly these tensors.

    The classifier, from fc6, fc7 or fc8 on, may be absent from ``state`` as a whole; it is
    then cut off ``net``, so that no layer answers with values that were never trained.

    Returns:
        The names of the tensors cut off, in order; none if the state is complete.

    Raises:
        WeightsMismatch: tensors missing, unexpected, or of another shape, all named; ``net``
            is as it was. ``what`` begins the message, and ``hint`` is its hint.
    """
    needed = without_data(net).canonical_state_dict()
    missing = [name for name in needed if name not in state]
    first_cut = _tail(missing, needed)
    told = differences(state, {k: v for k, v in needed.items() if k in state or not first_cut})
    if told:
        raise WeightsMismatch(f"{what}: {told}", hint=hint)
    if first_cut:
        net.cut(first_cut)
    net.load_canonical(state)
    return tuple(missing)


def misfit_hint(path: Path) -> str:
    """What to do about weights in ``path`` that do not fit."""
    if path.suffix.lower() == ".onnx":
        return (
            "a graph has batch norm folded into convolutions, and no towers: name the run it is"
            " of, or its .safetensors"
        )
    return MADE_WITH


def differences(state: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> str:
    """Which tensors are missing, unexpected, or of another shape or kind; "" if none is."""
    faults = [
        _listed("missing", (name for name in needed if name not in state)),
        _listed("unexpected", (name for name in state if name not in needed)),
        _listed("of another kind", _misfits(state, needed)),
    ]
    return "; ".join(filter(None, faults))


def _tail(missing: list[str], needed: Mapping[str, Tensor]) -> str | None:
    """The layer from which on the whole classifier, and nothing else, is missing."""
    for i, layer in enumerate(CLASSIFIER):
        tail = [name for name in needed if name.split(".")[0] in CLASSIFIER[i:]]
        if missing and missing == tail:
            return layer
    return None


def _misfits(state: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> Iterable[str]:
    for name, tensor in state.items():
        if name not in needed:
            continue
        got, want = tuple(tensor.shape), tuple(needed[name].shape)
        if got != want:
            yield f"{name} {got} where {want} is needed"
        elif tensor.is_floating_point() != needed[name].is_floating_point():
            yield f"{name} {tensor.dtype} where {needed[name].dtype} is needed"


def _listed(kind: str, names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{kind} {', '.join(names[:LISTED])}{more}" if names else ""


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Writes a safetensors file that is either whole and on the disk, or not there.

    Args:
        path: replaced if it exists; its folder is made.
        state: canonical names; any device.
        metadata: what :meth:`alexkit.models.zoo.Backbone.metadata` gives, and more.

    Returns:
        The file's SHA-256 in hex.

    Raises:
        OutOfSpace: the disk is full or cannot be written; nothing is left behind.
    """
    needed = sum(t.numel() * t.element_size() for t in state.values())
    with writing(path, f"it needs {needed / 1e6:.0f} MB: {MAKE_ROOM}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            _, sha256 = write_tensors(file, state, metadata)
        sync_folder(path.parent)
    return sha256


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 in hex of the tensors' names, types, shapes and values, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
