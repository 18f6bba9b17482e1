"""The networks by name: how each is built, what its images go through, where it is from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor

from alexkit.errors import UnknownName
from alexkit.images.preprocess import Preprocess
from alexkit.models.bn import BatchNormAlexNet
from alexkit.models.caffe import BvlcAlexNet, CaffeNet
from alexkit.models.layered import LayeredNet
from alexkit.models.owt import OneTowerAlexNet
from alexkit.models.paper import Ablation, TwoTowerAlexNet


@dataclass(frozen=True)
class Published:
    """Weights on the network: where, and how their SHA-256 begins."""

    url: str
    sha256_prefix: str


@dataclass(frozen=True)
class BackboneSpec:
    """What is known of a network before any weights.

    Attributes:
        name: as ``--model`` takes it.
        build: makes it for K classes.
        preprocess: what its images go through unless the weights say otherwise.
        aliases: other names of its layers -> ours.
        imagenet: its published ImageNet weights, if there are any.
    """

    name: str
    build: Callable[[int], LayeredNet]
    preprocess: Preprocess
    aliases: Mapping[str, str] = field(default_factory=dict)
    imagenet: Published | None = None

    def empty(self, num_classes: int = 1000) -> LayeredNet:
        """The network with shapes but no data, on torch's "meta" device; costs nothing."""
        with torch.device("meta"):
            return self.build(num_classes)


PAPER_PREPROCESS = Preprocess(
    resize=256, crop=224, mean=(127.305, 119.715, 104.913), std=(1.0, 1.0, 1.0), scale=1.0
)
"""P §2: short side 256, raw RGB values less their mean. The means are the channel averages
of the author's own mean image (cuda-convnet2, ``make-data/input_meta``)."""

CAFFE_PREPROCESS = Preprocess(
    resize=256,
    mode="squash",
    crop=227,
    mean=(104.007, 116.669, 122.679),
    std=(1.0, 1.0, 1.0),
    scale=1.0,
    channels="BGR",
)
"""``examples/imagenet`` of BVLC/caffe resizes both sides to 256; the means are the channel
averages of its ``ilsvrc_2012_mean.npy``, as its classification example subtracts them."""

TORCHVISION_ALIASES = {
    "features.0": "conv1:pre",
    "features.1": "conv1",
    "features.2": "pool1",
    "features.3": "conv2:pre",
    "features.4": "conv2",
    "features.5": "pool2",
    "features.6": "conv3:pre",
    "features.7": "conv3",
    "features.8": "conv4:pre",
    "features.9": "conv4",
    "features.10": "conv5:pre",
    "features.11": "conv5",
    "features.12": "pool5",
    "classifier.1": "fc6:pre",
    "classifier.2": "fc6",
    "classifier.4": "fc7:pre",
    "classifier.5": "fc7",
    "classifier.6": "fc8",
}
"""Modules of torchvision's ``alexnet``; what each computes, before the next one changes it."""

CAFFE_ALIASES = {f"relu{i}": f"conv{i}" for i in range(1, 6)} | {"relu6": "fc6", "relu7": "fc7"}
"""Names of Caffe's ReLU layers; its blobs have our names."""

_OURS = (
    BackboneSpec("alexnet", TwoTowerAlexNet, PAPER_PREPROCESS),
    BackboneSpec(
        "alexnet-owt",
        OneTowerAlexNet,
        Preprocess(),
        TORCHVISION_ALIASES,
        imagenet=Published(
            url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
            sha256_prefix="7be5be79",
        ),
    ),
    # The source normalises the image inside the network; torchvision's mean and standard
    # deviation come to the same.
    BackboneSpec("alexnet-bn", BatchNormAlexNet, Preprocess()),
    BackboneSpec("bvlc-alexnet", BvlcAlexNet, CAFFE_PREPROCESS, CAFFE_ALIASES),
    BackboneSpec("caffenet", CaffeNet, CAFFE_PREPROCESS, CAFFE_ALIASES),
)
SPECS: Mapping[str, BackboneSpec] = MappingProxyType({spec.name: spec for spec in _OURS})


ABLATIONS = {
    "no-lrn": Ablation(lrn=False),
    "no-overlap": Ablation(overlap=False),
    "half": Ablation(towers=1),
    "tanh": Ablation(tanh=True),
    "no-dropout": Ablation(dropout=False),
    "code-145": Ablation(middle_std=0.03),
}
"""Words behind ``alexnet-``: networks that differ from the paper's in one thing."""


def _variants() -> dict[str, BackboneSpec]:
    made = {}
    for word, ablation in ABLATIONS.items():
        name = f"alexnet-{word}"
        build = functools.partial(TwoTowerAlexNet, ablation=ablation)
        made[name] = replace(SPECS["alexnet"], name=name, build=build)
    gap = functools.partial(BatchNormAlexNet, gap=True)
    made["alexnet-bn-gap"] = replace(SPECS["alexnet-bn"], name="alexnet-bn-gap", build=gap)
    return made


VARIANTS: Mapping[str, BackboneSpec] = MappingProxyType(_variants())
"""Networks that an option of ``train`` makes of those above; weights name them."""


def is_ours(name: str) -> bool:
    """Whether the network called ``name`` is one of those above, not torchvision's."""
    return name in SPECS or name in VARIANTS


def find_spec(name: str) -> BackboneSpec:
    """The network called ``name``.

    Raises:
        UnknownName: there is none.
    """
    known = {**SPECS, **VARIANTS}
    if name not in known:
        raise UnknownName("model", name, known)
    return known[name]


def detect_models(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the networks whose conv1 is the one in ``state`` and that share most tensors
    with it, by canonical name and shape."""
    scores = {}
    for name, spec in SPECS.items():
        shapes = {k: v.shape for k, v in spec.empty().canonical_state_dict().items()}
        same = {k for k, tensor in state.items() if shapes.get(k) == tensor.shape}
        if "conv1.weight" in same:
            scores[name] = len(same)
    best = max(scores.values(), default=0)
    return [name for name, score in scores.items() if score == best]
