"""Networks as ONNX files: written, run, and weights read from them.

``onnx``, ``onnxscript`` and ``onnxruntime`` are an extra; each is loaded when it is wanted.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from alexkit.errors import DamagedFile
from alexkit.extras import extra
from alexkit.images.preprocess import Preprocess

INPUT, OUTPUTS = "image", ("logits", "probabilities")
EXAMPLES = 2
"""Images of the batch that is traced; the graph takes any number."""

_WEIGHT = re.compile(
    r"(weight|bias|running_mean|running_var|_[wb](_0)?|fc8\.centres|fc8\.gamma)$"
)
"""Names of tensors that are learned; a graph holds sizes and the like besides."""

_OUTER = re.compile(r"^net\.(network\.)?")
"""What :class:`ToProbabilities` and torchvision's networks put before the names of tensors."""

HINT = "copy or download it again"

_onnx = partial(extra, "onnx", "ONNX")
"""A module of the extra ``onnx``."""


class ToProbabilities(nn.Module):
    """A network from its input, or from the pixels of squares, to logits and probabilities.

    Args:
        net: gives logits (N, K) of (N, 3, S, S) float32.
        preprocess: takes in pixels, (N, S, S, 3) uint8 RGB, instead; None: the network's
            own input.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, net: nn.Module, preprocess: Preprocess | None) -> None:
        super().__init__()
        self.net = net
        self.backwards = preprocess is not None and preprocess.channels == "BGR"
        self.pixels = preprocess is not None
        if preprocess is not None:
            std = torch.tensor(preprocess.std, dtype=torch.float64)
            mean = torch.tensor(preprocess.mean, dtype=torch.float64)
            self.register_buffer("scale", (preprocess.scale / std).float().view(1, 3, 1, 1))
            self.register_buffer("shift", (mean / std).float().view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if self.pixels:
            image = image.permute(0, 3, 1, 2)
            if self.backwards:
                image = image.flip(1)
            image = image.float() * self.scale - self.shift
        logits = self.net(image)
        return logits, torch.softmax(logits, dim=1)


def write_onnx(
    path: Path,
    net: nn.Module,
    preprocess: Preprocess,
    metadata: Mapping[str, str],
    *,
    pixels: bool,
) -> None:
    """Writes the network with any number of images a batch.

    Args:
        path: replaced if it exists.
        net: in evaluation mode, on the CPU.
        preprocess: its images'; ``crop`` is the side of the input.
        metadata: goes into the file.
        pixels: the input is (N, S, S, 3) uint8 RGB, else (N, 3, S, S) float32 normalised.

    Raises:
        UsageError: the extra is not installed.
        OSError: it cannot be written.
    """
    for module in ("onnx", "onnxscript"):
        _onnx(module)
    side = preprocess.crop
    example = torch.zeros(EXAMPLES, 3, side, side)
    if pixels:
        example = torch.zeros(EXAMPLES, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch about itself
        program = torch.onnx.export(
            ToProbabilities(net, preprocess if pixels else None).eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
        )
        assert program is not None
        program.model.metadata_props.update(metadata)
        program.save(path)


def onnx_runner(path: Path) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.float32]]:
    """A function from the input of :func:`write_onnx`'s file to probabilities (N, K).

    Raises:
        UsageError: the extra is not installed.
    """
    runtime = _onnx("onnxruntime")
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    session = runtime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def run(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return np.asarray(session.run([OUTPUTS[1]], {INPUT: image})[0], np.float32)

    return run


def read_onnx(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a graph by their names, and what it says of itself.

    Returns:
        The tensors, and the metadata: what is in the file, and for Caffe's AlexNet and
        CaffeNet ``caffe``, the network's name by the order of its layers, and ``side``, the
        pixels its input has.

    Raises:
        UsageError: the extra is not installed.
        DamagedFile: it is no ONNX file, or damaged.
    """
    onnx = _onnx("onnx")
    # Whatever the parser of damaged bytes leads into, they are damaged; it warns besides.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = (model := onnx.load(path)).graph
        tensors = {
            _OUTER.sub("", one.name): torch.from_numpy(
                np.array(onnx.numpy_helper.to_array(one))
            )
            for one in graph.initializer
            if _WEIGHT.search(one.name)
        }
        if not graph.node:
            raise ValueError("it has no graph")
        tensors |= _zeros_left_out(graph, tensors)
        metadata = {one.key: one.value for one in model.metadata_props}
        if not all(isinstance(text, str) for one in metadata.items() for text in one):
            raise ValueError(
                "its metadata are no text"
            )  # protobuf gives such bytes as they are
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise DamagedFile(f"{path} is damaged or no ONNX file: {reason}", hint=HINT) from error
    kinds = [node.op_type for node in graph.node if node.op_type in ("LRN", "MaxPool")]
    if kinds[:2] in (["LRN", "MaxPool"], ["MaxPool", "LRN"]):
        metadata["caffe"] = "bvlc-alexnet" if kinds[0] == "LRN" else "caffenet"
        filled = {one.name for one in graph.initializer}
        inputs = [one for one in graph.input if one.name not in filled]
        sides = [d.dim_value for d in inputs[0].type.tensor_type.shape.dim] if inputs else []
        if len(sides) == 4 and sides[2] == sides[3] > 0:
            metadata["side"] = str(sides[2])
    return tensors, metadata


def _zeros_left_out(graph: Any, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Biases of layers that have none in the graph: torch's exporter leaves out those that are
    all zero."""
    zeros = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm") and len([name for name in node.input if name]) == 2:
            name = _OUTER.sub("", node.input[1])
            layer, dot, kind = name.rpartition(".")
            if kind == "weight" and name in tensors:
                zeros[f"{layer}{dot}bias"] = torch.zeros(len(tensors[name]))
    return zeros
