"""How the name of a network and some weights become a network ready for use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alexkit.choices import WEIGHT_WORDS
from alexkit.errors import DamagedFile, UnknownName, UsageError, WeightsMismatch
from alexkit.events import Reporter, silent
from alexkit.images.preprocess import Preprocess
from alexkit.models.download import fetch
from alexkit.models.heads import attach_head
from alexkit.models.layered import LayeredNet, initialise, with_room
from alexkit.models.records import check_count, describe, described, is_record
from alexkit.models.specs import (
    SPECS,
    VARIANTS,
    BackboneSpec,
    detect_models,
    find_spec,
    is_ours,
)
from alexkit.models.weights import (
    file_sha256,
    fit_state,
    misfit_hint,
    read_metadata,
    read_state,
    state_sha256,
    torchvision_names,
)

if TYPE_CHECKING:
    from alexkit.models.torchvision_nets import TorchvisionBackbone

PUBLISHED = "alexnet-owt"
"""The network that ``imagenet`` means when none is named."""

CPU = torch.device("cpu")


@dataclass
class Backbone:
    """A network with its weights, and all that must travel with them.

    Attributes:
        net: anything with ``taps(x, layers)`` and ``layer_shapes()``.
        spec: what it was built from.
        preprocess: what its images go through.
        classes: K names; index = output of fc8. Empty where the weights do not say. Who
            replaces the head names its classes here.
        source: where the weights come from, for people.
        sha256: of the weight file, or of the tensors where there is no file.
        missing: canonical names of tensors of the whole network that the weights lack.
    """

    net: LayeredNet
    spec: BackboneSpec
    preprocess: Preprocess
    classes: tuple[str, ...]
    source: str
    sha256: str
    missing: tuple[str, ...]

    maps_are_last = False
    """Its maps are (C, H, W)."""

    @property
    def name(self) -> str:
        """As ``--model`` takes it."""
        return self.spec.name

    def layer_aliases(self) -> dict[str, list[str]]:
        """Our name of a layer -> its other names."""
        aliases: dict[str, list[str]] = {}
        for alias, layer in self.spec.aliases.items():
            aliases.setdefault(layer, []).append(alias)
        return aliases

    def resolve_layers(self, names: Sequence[str]) -> list[str]:
        """Our names of the layers that ``names`` mean, each once, in the order given.

        Raises:
            UnknownName: no such layer in this network.
            WeightsMismatch: the layer is there, but not in these weights.
        """
        there = self.net.layer_shapes()
        resolved = []
        for name in names:
            layer = self.spec.aliases.get(name, name)
            if layer not in there:
                known = self.spec.empty().layer_shapes()
                if layer not in known:
                    raise UnknownName("layer", name, known)
                served = [shown for shown in there if ":" not in shown]
                raise WeightsMismatch(
                    f"layer {name} needs tensors that {self.source} lacks: "
                    f"{', '.join(self.missing)}",
                    hint=f"use whole weights, or a layer these serve: {', '.join(served)}",
                )
            resolved.append(layer)
        return list(dict.fromkeys(resolved))

    def metadata(self) -> dict[str, str]:
        """What a weight file of this network says about itself."""
        return describe(self.spec.name, self.classes, self.preprocess)


def skeleton(model: str | None) -> Backbone | TorchvisionBackbone:
    """A network with shapes but no data: what its layers are, without its weights.

    Args:
        model: a name :func:`load_any` takes; None is ``alexnet-owt``.

    Raises:
        UnknownName: no such model.
    """
    if model in SPECS or model is None:
        spec = SPECS[model or PUBLISHED]
        return Backbone(spec.empty(), spec, spec.preprocess, (), "none", "", ())
    made: TorchvisionBackbone = _torchvision(model).torchvision_skeleton(model)
    return made


def load_any(
    model: str | None,
    weights: Path | str,
    *,
    seed: int,
    headless: bool = False,
    report: Reporter = silent,
) -> Backbone | TorchvisionBackbone:
    """A network of ours, see :func:`load_backbone`, or one of torchvision, see
    :func:`alexkit.models.torchvision_nets.load_torchvision`; our names come first.

    Raises:
        UnknownName: no such model in either.
    """
    if model is None and weights not in WEIGHT_WORDS:
        model = _torchvision_model_in(Path(weights))
    if model is None or is_ours(model):
        return load_backbone(model, weights, seed=seed, report=report)
    nets = _torchvision(model)
    made: TorchvisionBackbone = nets.load_torchvision(
        model, weights, seed=seed, headless=headless, report=report
    )
    return made


def _torchvision_model_in(path: Path) -> str | None:
    """The network of torchvision that a weight file of ours says it is of."""
    metadata = read_metadata(path)
    said = metadata.get("model") if is_record(metadata) else None
    if said is None or is_ours(said):
        return None
    nets = import_module("alexkit.models.torchvision_nets")  # see _torchvision
    return said if said in nets.classification_models() else None


def _torchvision(model: str) -> Any:
    """The module with the networks of torchvision, one of which is ``model``."""
    # Not imported above: torchvision takes three seconds, which our own networks do not need.
    nets = import_module("alexkit.models.torchvision_nets")
    known = [*SPECS, *(name for name in nets.classification_models() if name not in SPECS)]
    if model not in known:
        raise UnknownName("model", model, known)
    return nets


def load_backbone(
    model: str | None,
    weights: Path | str,
    *,
    seed: int,
    devices: Sequence[torch.device] = (CPU,),
    num_classes: int | None = None,
    report: Reporter = silent,
) -> Backbone:
    """A network with weights, in float32.

    Args:
        model: a name in :data:`alexkit.models.specs.SPECS`; None is what the weights say.
        weights: ``"imagenet"`` (published ones, fetched once), ``"random"``, or a file.
        seed: of random weights.
        devices: its slots; a network of one slot goes to the first.
        num_classes: K of random weights, 1000 unless given; other weights bring their own.
        report: told how far a download is.

    Raises:
        UnknownName: no such model.
        UsageError: random weights, or weights that fit several models, with none named; or
            a model without published weights.
        DataError, DamagedFile: see :func:`alexkit.models.weights.read_state`.
        DownloadFailed, OutOfSpace: see :func:`alexkit.models.download.fetch`.
        WeightsMismatch: the weights are not this model's, or no model's.
    """
    spec = find_spec(model) if model is not None else None
    if weights == "random":
        backbone = _random(spec, seed, num_classes or 1000)
    elif weights == "imagenet":
        spec = spec or SPECS[PUBLISHED]
        if spec.imagenet is None:
            raise UsageError(
                f"there are no published ImageNet weights for {spec.name}",
                hint="use --model alexnet-owt, or name a weight file: --weights FILE",
            )
        path, sha256 = fetch(spec.imagenet.url, spec.imagenet.sha256_prefix, report=report)
        backbone = _from_file(spec, path, sha256)
    else:
        path = Path(weights)
        backbone = _from_file(spec, path, None)
    backbone.net.place(devices)
    return backbone


def torchvision_form(
    backbone: Backbone | TorchvisionBackbone,
) -> tuple[str | None, dict[str, Tensor]]:
    """torchvision's name of a network and its tensors by torchvision's names; None and the
    canonical names where torchvision has no network of that shape."""
    state = backbone.net.canonical_state_dict()
    if not isinstance(backbone, Backbone):
        return backbone.name, state
    if (
        backbone.name == PUBLISHED
        and {"fc6.weight", "fc7.weight", "fc8.weight"} <= state.keys()
    ):
        return "alexnet", torchvision_names(state)
    return None, state


def read_torchvision(name: str, path: Path) -> nn.Module:
    """torchvision's own module ``name`` with the state dict in ``path``.

    Raises:
        DataError, DamagedFile: see :func:`alexkit.models.weights.read_state`.
        WeightsMismatch: it does not fit.
    """
    nets = import_module("alexkit.models.torchvision_nets")  # see _torchvision
    made: nn.Module = nets.load_torchvision(name, path, seed=0).net.network
    return made.eval()


def _random(spec: BackboneSpec | None, seed: int, num_classes: int) -> Backbone:
    if spec is None:
        raise UsageError(
            "random weights do not say which network", hint="add --model alexnet, for one"
        )
    net = with_room(spec.empty(num_classes))
    initialise(net, seed)
    return Backbone(
        net=net,
        spec=spec,
        preprocess=spec.preprocess,
        classes=(),
        source=f"random, seed {seed}",
        sha256=state_sha256(net.canonical_state_dict()),
        missing=(),
    )


def _from_file(spec: BackboneSpec | None, path: Path, sha256: str | None) -> Backbone:
    state, metadata = read_state(path)
    caffe = metadata.get("caffe")
    ours = is_record(metadata)
    spec = _spec_of(spec, state, metadata if ours else {"model": caffe} if caffe else {}, path)
    classes, preprocess = described(metadata, spec.preprocess, path)
    side = int(metadata.get("side", preprocess.crop))
    preprocess = replace(preprocess, crop=side)
    whole = list(spec.empty().canonical_state_dict())
    net = with_room(_shaped_like(spec, state))
    net.input_side = side
    fit_state(net, state, what=f"{path} does not fit {spec.name}", hint=misfit_hint(path))
    outputs = net.fc8.out_features if net.fc8 is not None else 0
    check_count(classes, outputs, path)
    return Backbone(
        net=net,
        spec=spec,
        preprocess=preprocess,
        classes=classes,
        source=str(path),
        sha256=sha256 or file_sha256(path),
        missing=tuple(name for name in whole if name not in state),
    )


def _spec_of(
    named: BackboneSpec | None,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    path: Path,
) -> BackboneSpec:
    """The network the weights are for: as they say, else as named, else by their shapes."""
    said = metadata.get("model")
    if said is not None:
        if not is_ours(said):
            raise DamagedFile(
                f"{path} is for a network called {said!r}, which is not known here",
                hint="it may need a newer alexkit; known: " + ", ".join(SPECS),
            )
        if named is not None and named.name != said:
            raise WeightsMismatch(
                f"{path} holds weights of {said}, not of {named.name}", hint="leave --model out"
            )
        return SPECS[said] if said in SPECS else VARIANTS[said]
    if named is not None:
        return named
    fitting = detect_models(state)
    if len(fitting) == 1:
        return SPECS[fitting[0]]
    if fitting:
        raise UsageError(
            f"the tensors in {path} fit several networks",
            hint=f"say which with --model: {', '.join(fitting)}",
        )
    shown = ", ".join(f"{name} {tuple(t.shape)}" for name, t in list(state.items())[:3])
    raise WeightsMismatch(
        f"{path} is for none of the networks known here: it begins with {shown}",
        hint=f"known: {', '.join(SPECS)}; one of torchvision's by its name: --model resnet50",
    )


def _shaped_like(spec: BackboneSpec, state: Mapping[str, Tensor]) -> LayeredNet:
    """The network without data, its head as wide as in ``state`` and where it is there."""
    net = spec.empty()
    head = state.get("fc8.weight")
    if head is not None and head.ndim == 2 and len(head):
        behind_pool5 = not {"fc6.weight", "fc7.weight"} & state.keys()
        before = "gap" if "gap" in net.stages() else "pool5"
        at = before if behind_pool5 else "fc7"
        centres = state.get("fc8.centres")
        rbf = centres is not None and centres.ndim == 2 and at == "pool5"
        attach_head(net, len(head), at=at, units=len(state["fc8.centres"]) if rbf else None)
    return net
