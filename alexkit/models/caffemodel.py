"""Caffe's ``.caffemodel`` files: the tensors of bvlc_alexnet and CaffeNet.

A file is one ``NetParameter`` of protocol buffers. The few fields that matter here are
described below with their numbers in ``src/caffe/proto/caffe.proto`` of BVLC/caffe, in both
forms in which layers are written: ``layers`` (V1, until 2014, the form of the published
files) and ``layer``. Nothing in such a file is code.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alexkit.errors import DamagedFile, DataError, WeightsMismatch
from alexkit.extras import extra

_OPTIONAL, _REPEATED = 1, 3
_INT32, _INT64, _STRING, _BYTES, _MESSAGE = 5, 3, 9, 12, 11
"""Labels and types of ``google/protobuf/descriptor.proto``."""

_FIELDS: dict[str, list[tuple[str, int, int | str, int]]] = {
    "NetParameter": [
        ("name", 1, _STRING, _OPTIONAL),
        ("layers", 2, "V1LayerParameter", _REPEATED),
        ("layer", 100, "LayerParameter", _REPEATED),
    ],
    "LayerParameter": [
        ("name", 1, _STRING, _OPTIONAL),
        ("type", 2, _STRING, _OPTIONAL),
        ("blobs", 7, "BlobProto", _REPEATED),
    ],
    "V1LayerParameter": [
        ("name", 4, _STRING, _OPTIONAL),
        ("type", 5, _INT32, _OPTIONAL),
        ("blobs", 6, "BlobProto", _REPEATED),
    ],
    # A packed list of floats is their bytes: read as such, 60 million need no Python objects.
    "BlobProto": [
        ("num", 1, _INT32, _OPTIONAL),
        ("channels", 2, _INT32, _OPTIONAL),
        ("height", 3, _INT32, _OPTIONAL),
        ("width", 4, _INT32, _OPTIONAL),
        ("data", 5, _BYTES, _OPTIONAL),
        ("shape", 7, "BlobShape", _OPTIONAL),
    ],
    "BlobShape": [("dim", 1, _INT64, _REPEATED)],
}

_V1_TYPES = {4: "Convolution", 14: "InnerProduct", 15: "LRN", 17: "Pooling"}
"""Of the enum ``V1LayerParameter.LayerType``."""

_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")


def read_caffemodel(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors by canonical name, and which network they are of.

    The two networks differ in what follows conv1: normalisation, then pooling in
    bvlc_alexnet, the other way round in CaffeNet. A last layer that is called otherwise, as
    after fine-tuning (``fc8_flickr``), is fc8.

    Returns:
        The tensors, float32, and ``{"caffe": "bvlc-alexnet" | "caffenet"}``.

    Raises:
        UsageError: protobuf is not installed.
        DataError: the file cannot be read.
        DamagedFile: it is truncated or no ``NetParameter``.
        WeightsMismatch: it is of another network.
    """
    net = _parsed(path)
    layers = list(net.layer) or list(net.layers)
    with_blobs = [layer for layer in layers if layer.blobs]
    if not with_blobs:
        raise DamagedFile(
            f"{path} has no layer with weights: it is truncated, or no .caffemodel",
            hint="copy or download it again",
        )
    names = [layer.name for layer in with_blobs]
    if len(names) == len(_LAYERS) and names[:-1] == list(_LAYERS[:-1]):
        names[-1] = _LAYERS[-1]
    if any(name not in _LAYERS for name in names) or len(set(names)) < len(names):
        told = ", ".join(map(str, names[:8]))  # what is no UTF-8 is given as bytes
        raise WeightsMismatch(
            f"{path} is a network of Caffe called {net.name!r} with the layers "
            f"{told}{', …' if len(names) > 8 else ''}, neither bvlc_alexnet "
            "nor CaffeNet",
            hint="only these two are known here",
        )
    state: dict[str, Tensor] = {}
    for name, layer in zip(names, with_blobs, strict=True):
        for kind, blob in zip(("weight", "bias"), layer.blobs, strict=False):
            state[f"{name}.{kind}"] = _tensor(blob, f"{path}: {name}.{kind}")
    return state, {"caffe": _which(layers, path)}


def _which(layers: list[Any], path: Path) -> str:
    kinds = [_kind(layer) for layer in layers]
    found = [kind for kind in kinds if kind in ("LRN", "Pooling")]
    if found[:2] == ["LRN", "Pooling"]:
        return "bvlc-alexnet"
    if found[:2] == ["Pooling", "LRN"]:
        return "caffenet"
    raise WeightsMismatch(
        f"{path} has no normalisation beside its first pooling, so it is neither "
        "bvlc_alexnet nor CaffeNet",
        hint="only these two are known here",
    )


def _kind(layer: Any) -> str:
    kind = layer.type
    return kind if isinstance(kind, str) else _V1_TYPES.get(kind, "")


def _tensor(blob: Any, what: str) -> Tensor:
    """A blob without the dimensions of 1 that old files put before vectors and matrices."""
    shape = tuple(blob.shape.dim)
    if not shape:
        shape = (blob.num, blob.channels, blob.height, blob.width)
        while len(shape) > 1 and shape[0] == 1:
            shape = shape[1:]
    if min(shape, default=0) < 1 or 4 * prod(shape) != len(blob.data):
        raise DamagedFile(
            f"{what} has the shape {shape} and {len(blob.data):,} bytes",
            hint="copy or download it again",
        )
    return torch.from_numpy(np.frombuffer(blob.data, "<f4").astype(np.float32).reshape(shape))


def _parsed(path: Path) -> Any:
    message = net_parameter()()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", hint="name a .caffemodel file"
        ) from error
    # The parser's own class of errors differs between its implementations.
    try:
        message.ParseFromString(data)
    except Exception as error:
        raise DamagedFile(
            f"{path} is truncated, damaged or no .caffemodel: {error}",
            hint="copy or download it again",
        ) from error
    return message


def net_parameter() -> Any:
    """The class of ``NetParameter`` messages, with the fields that are read here.

    Raises:
        UsageError: protobuf is not installed.
    """
    file = _protobuf("descriptor_pb2").FileDescriptorProto()
    file.name, file.package, file.syntax = "alexkit/caffe.proto", "caffe", "proto2"
    for message, fields in _FIELDS.items():
        described = file.message_type.add()
        described.name = message
        for name, number, kind, label in fields:
            field = described.field.add()
            field.name, field.number, field.label = name, number, label
            if isinstance(kind, str):
                field.type, field.type_name = _MESSAGE, f".caffe.{kind}"
            else:
                field.type = kind
    pool = _protobuf("descriptor_pool").DescriptorPool()
    pool.Add(file)
    described = pool.FindMessageTypeByName("caffe.NetParameter")
    return _protobuf("message_factory").GetMessageClass(described)


def _protobuf(module: str) -> ModuleType:
    return extra("onnx", "a .caffemodel", f"google.protobuf.{module}", "protobuf")
