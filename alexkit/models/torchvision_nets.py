"""Any classification network of torchvision: by its name, its layers by their graph nodes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import torch
import torchvision
from torch import Tensor, fx, nn
from torchvision.models import feature_extraction

from alexkit.errors import UnknownName, WeightsMismatch
from alexkit.events import Reporter, silent
from alexkit.images.preprocess import Preprocess
from alexkit.models.download import fetch
from alexkit.models.layered import without_data
from alexkit.models.records import check_count, describe, described, is_record
from alexkit.models.weights import (
    differences,
    file_sha256,
    misfit_hint,
    read_tensors,
    state_sha256,
)

PROBE = 3
"""Images a batch when the shapes of nodes are found: a number no other dimension has, to
tell values with one row an image from others."""

_HASH = re.compile(r"-([a-f0-9]+)\.")
"""Where torch.hub looks for the beginning of a SHA-256 in a file's name."""

_OLD_DENSENET = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")
"""Names in the published DenseNet files, which torchvision joins as it loads them."""


_TRACING = Lock()
"""Tracing patches torch for the whole process: threads that share a network wait for it."""


class TorchvisionNet(nn.Module):
    """A network of torchvision whose graph nodes can be asked for, in evaluation mode.

    A layer is a node of the graph that :mod:`torchvision.models.feature_extraction` traces
    (``layer4.1.relu_1``), or a module (``layer4.1``), which is the last node inside it.

    Attributes:
        network: torchvision's module, its classifier included, on which :meth:`forward` runs.
        input_side: height and width of the images it is made for, in pixels.
        modules_of: node -> the modules it is the end of, innermost first.
    """

    def __init__(self, network: nn.Module, input_side: int) -> None:
        super().__init__()
        self.network = _never_in_place(network)
        self.input_side = input_side
        # In a list and a dict, which torch does not look into: both share the weights.
        self._extractors: dict[tuple[str, ...], nn.Module] = {}
        self._shapes, self.modules_of = _nodes(network, input_side)
        self._image = next(iter(self._shapes))
        self._node_of = {name: name for name in self._shapes} | {
            module: node for node, modules in self.modules_of.items() for module in modules
        }

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, K) of (N, 3, input_side, input_side) float32."""
        return self.network(x)  # type: ignore[no-any-return]

    def place(self, devices: Sequence[torch.device]) -> None:
        """Moves it to the first of ``devices``."""
        self._extractors.clear()
        self.to(devices[0])

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """Its live tensors by torchvision's names, which are what a file has."""
        return dict(self.network.state_dict())

    def load_canonical(self, state: Mapping[str, Tensor]) -> None:
        """Copies ``state`` in, see :meth:`canonical_state_dict`."""
        self.network.load_state_dict(state)

    @property
    def slots(self) -> tuple[torch.device, ...]:
        """The device it is on."""
        return (next(self.parameters()).device,)

    @property
    def logits_node(self) -> str:
        """The node that :meth:`forward` returns."""
        return list(self._shapes)[-1]

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every node with a value for each image, in order, then the modules; with the shape
        of one image's value."""
        return {name: self._shapes[node] for name, node in self._node_of.items()}

    def taps(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The values of ``layers``, all from one pass; it leaves evaluation mode on.

        Args:
            x: (N, 3, H, W) float32.
            layers: nodes or modules; the result has them in this order.

        Raises:
            UnknownName: the network has no such node.
        """
        for name in layers:
            if name not in self._node_of:
                raise UnknownName("layer", name, self._node_of, listed_by="--list-layers")
        nodes = tuple(dict.fromkeys(self._node_of[name] for name in layers))
        with _TRACING:
            if nodes not in self._extractors:
                self._extractors[nodes] = _extractor(self.network, self._image, nodes)
        found = self._extractors[nodes].eval()(x)
        return {name: found[self._node_of[name]] for name in layers}


@dataclass
class TorchvisionBackbone:
    """What :class:`alexkit.models.zoo.Backbone` is, for a network of torchvision.

    Attributes:
        name: torchvision's name of the network.
        net: the network.
        preprocess: what its images go through: that of its published weights.
        source: where the weights come from, for people.
        sha256: of the weight file, or of the tensors where there is no file.
        classes: K names; index = output. Empty where the weights do not say.
        missing: names of tensors that the weights lack: those of the last layer, if any.
    """

    name: str
    net: TorchvisionNet
    preprocess: Preprocess
    source: str
    sha256: str
    classes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def maps_are_last(self) -> bool:
        """Whether its maps are (H, W, C), not (C, H, W)."""
        return self.name.startswith("swin_")

    def resolve_layers(self, names: Sequence[str]) -> list[str]:
        """``names``, each once, in the order given.

        Raises:
            UnknownName: no such node or module.
        """
        known = self.net.layer_shapes()
        for name in names:
            if name not in known:
                listed_by = f"alexkit features --model {self.name} --list-layers"
                raise UnknownName(f"layer of {self.name}", name, known, listed_by=listed_by)
        return list(dict.fromkeys(names))

    def layer_aliases(self) -> dict[str, list[str]]:
        """Node -> the modules that mean it."""
        return self.net.modules_of

    def metadata(self) -> dict[str, str]:
        """What a weight file of this network says about itself."""
        return describe(self.name, self.classes, self.preprocess)


def classification_models() -> list[str]:
    """torchvision's names of its classification networks."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def imagenet_names() -> tuple[str, ...]:
    """torchvision's names of ImageNet's 1,000 classes, no two alike, in the order of their
    WordNet ids, which is that of its published weights and of Caffe's."""
    return tuple(torchvision.models.AlexNet_Weights.IMAGENET1K_V1.meta["categories"])


def torchvision_skeleton(name: str) -> TorchvisionBackbone:
    """The network with shapes but no data; nothing is fetched."""
    preprocess = _preprocess(_published(name).transforms())
    network = without_data(_build(name, {}, preprocess.crop))
    return TorchvisionBackbone(
        name, TorchvisionNet(network, preprocess.crop), preprocess, "none", ""
    )


def load_torchvision(
    name: str,
    weights: Path | str,
    *,
    seed: int,
    headless: bool = False,
    report: Reporter = silent,
) -> TorchvisionBackbone:
    """A classification network of torchvision, in float32, on the CPU.

    Args:
        name: one of :func:`classification_models`.
        weights: ``"imagenet"`` (torchvision's default weights, fetched once), ``"random"``, or
            a file with the network's state dict, of any number of classes.
        seed: of random weights.
        headless: a file may lack the last layer, whose weights are then zeros: for one who
            replaces it.
        report: told how far a download is.

    Raises:
        DataError, DamagedFile: see :func:`alexkit.models.weights.read_state`.
        DownloadFailed, OutOfSpace: see :func:`alexkit.models.download.fetch`.
        WeightsMismatch: the weights are not this network's.
    """
    published = _published(name)
    preprocess = _preprocess(published.transforms())
    classes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    side = preprocess.crop
    if weights == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _build(name, None, side)
        source, sha256 = f"random, seed {seed}", state_sha256(network.state_dict())
    else:
        path, digest = Path(weights), None
        if weights == "imagenet":
            found = _HASH.search(published.url)
            assert found, published.url
            path, digest = fetch(published.url, found[1], report=report)
        state, metadata = read_tensors(path)
        said = metadata.get("model") if is_record(metadata) else name
        if said != name:
            raise WeightsMismatch(
                f"{path} holds weights of {said}, not of {name}", hint="leave --model out"
            )
        classes, preprocess = described(metadata, preprocess, path)
        if headless:
            blank = _blank_head(name, state, side)
            state, missing = {**state, **blank}, tuple(blank)
        network = _filled(name, state, path, side)
        source, sha256 = str(path), digest or file_sha256(path)
    net = TorchvisionNet(network, side)
    check_count(classes, net.layer_shapes()[net.logits_node][-1], Path(source))
    return TorchvisionBackbone(name, net, preprocess, source, sha256, classes, missing)


def _build(name: str, state: Mapping[str, Tensor] | None, input_side: int) -> Any:
    """The network drawn at random, or one without data into which ``state`` may fit: its
    head as wide as there, and with the side heads that are there."""
    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # As torchvision builds them for its published weights, made with TensorFlow's scaling.
        settings = {"transform_input": True, "init_weights": state is None}
    if name.startswith("vit_"):
        settings = {"image_size": input_side}
    if state is None:
        return torchvision.models.get_model(name, **settings)
    if name in ("googlenet", "inception_v3"):
        settings["aux_logits"] = any(key.startswith(("aux1.", "AuxLogits.")) for key in state)
    # The builder of RegNet computes with tensors, which needs data.
    with torch.device("cpu" if name.startswith("regnet_") else "meta"):
        *_, head = torchvision.models.get_model(name, **settings).state_dict()
        if head in state and len(state[head].shape):
            settings["num_classes"] = len(state[head])
        return torchvision.models.get_model(name, **settings)


def _blank_head(name: str, state: Mapping[str, Tensor], input_side: int) -> dict[str, Tensor]:
    """Zeros for the tensors of the last layer, where ``state`` has none of them."""
    needed = _build(name, state, input_side).state_dict()
    *_, last = needed
    head = last.rpartition(".")[0]
    own = {key: tensor for key, tensor in needed.items() if key.rpartition(".")[0] == head}
    if own.keys() & state.keys():
        return {}
    return {key: torch.zeros(tensor.shape) for key, tensor in own.items()}


def _filled(name: str, state: Mapping[str, Tensor], path: Path, input_side: int) -> Any:
    if name.startswith("densenet"):
        state = {_OLD_DENSENET.sub(r"\1\2", key): tensor for key, tensor in state.items()}
    network = _build(name, state, input_side)
    needed = network.state_dict()
    # Files from before torch 0.4.1 have no count of the batches, which only training reads.
    counts = {key: torch.tensor(0) for key in needed if key.endswith("num_batches_tracked")}
    whole = OrderedDict({key: state.get(key, counts.get(key)) for key in needed})
    told = differences({**counts, **state}, needed)
    if told:
        raise WeightsMismatch(f"{path} does not fit {name}: {told}", hint=misfit_hint(path))
    # What torch writes beside the tensors says which version of a module they are of.
    whole._metadata = needed._metadata  # type: ignore[attr-defined]
    network.to_empty(device="cpu").load_state_dict(whole)
    return network


def _published(name: str) -> Any:
    """torchvision's default weights of a network."""
    return torchvision.models.get_model_weights(name).DEFAULT


def _preprocess(preset: Any) -> Preprocess:
    """The record of torchvision's preset ``ImageClassification``."""
    return Preprocess(
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        antialias=preset.antialias,
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def _never_in_place(network: nn.Module) -> nn.Module:
    """Keeps each module from overwriting what came before it, which may have been asked for."""
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    return network


def _extractor(network: nn.Module, image: str, nodes: Sequence[str]) -> nn.Module:
    """A module that returns ``nodes`` by name, on the network's own weights, in evaluation
    mode; in training mode, which is not used, it returns the node ``image`` that goes in."""
    extractor = feature_extraction.create_feature_extractor(
        network,
        train_return_nodes=[image],
        eval_return_nodes=list(nodes),
        suppress_diff_warning=True,
    )
    graph = extractor.eval_graph
    assert isinstance(graph, fx.Graph)
    for node in graph.nodes:
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    extractor.train()
    extractor.eval()  # the graph is compiled as it comes into use
    made: nn.Module = extractor
    return made


def _nodes(
    network: nn.Module, input_side: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, list[str]]]:
    """Nodes that are float tensors with a row for each image -> the shape of a row; and the
    modules whose last node each is, innermost first."""
    skeleton = without_data(network).eval()
    _, names = feature_extraction.get_graph_node_names(skeleton, suppress_diff_warning=True)
    with torch.no_grad():
        found = _extractor(skeleton, names[0], names)(
            torch.empty(PROBE, 3, input_side, input_side, device="meta")
        )
    shapes = {
        name: tuple(found[name].shape[1:])
        for name in names
        if isinstance(found.get(name), Tensor)
        and found[name].is_floating_point()
        and found[name].ndim > 1
        and found[name].shape[0] == PROBE
    }
    last: dict[str, str] = {}
    for name in names:
        for end in range(name.count("."), 0, -1):
            module = ".".join(name.split(".")[:end])
            last.pop(module, None)
            last[module] = name
    modules: dict[str, list[str]] = {}
    for module, node in last.items():
        if node in shapes and module not in shapes:
            modules.setdefault(node, []).append(module)
    return shapes, modules
