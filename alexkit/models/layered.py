"""A network as an ordered walk through named layers, any of which can be asked for.

Layer names are the papers': ``conv1 … conv5``, ``norm1 norm2``, ``pool1 pool2 pool5``,
``fc6 fc7 fc8``, ``prob``. ``convN`` and ``fcN`` are after the ReLU and without dropout,
``convN:pre`` and ``fcN:pre`` before it; ``fc8`` are the logits, ``prob`` their softmax.

Tensor names are canonical: ``conv1.weight … fc8.bias`` (``conv1.bn.weight`` and so on with
batch norm), in the shapes of one device with grouped convolutions, so that a weight file
does not depend on where the network ran.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.errors import UnknownName
from alexkit.models.division import Division, Halves

Activation = Tensor | Halves
A = TypeVar("A", Tensor, Halves)
Net = TypeVar("Net", bound=nn.Module)
Walk = Iterator[tuple[str, Activation]]
Steps = Iterator[tuple[str, A]]
Stages = Mapping[str, Callable[[Any], Iterator[tuple[str, Any]]]]
"""Layer -> what computes it, and its ``:pre``, from the value before."""

CLASSIFIER = ("fc6", "fc7", "fc8")
"""The layers that weights may lack, from one of them to the end."""

PIECE = 32
"""Images that go through the convolutions at a time on a CPU; the fully connected layers take
the whole batch. Memory for AlexNet's largest maps, 25 MB, is then used again. glibc gives
blocks of more than 32 MB back to the system, which has to clear new ones: 1.3 of 18.5 core-ms
an image in batches of 64. Of fc6 and fc7, 220 MB of weights, which are read once a batch, an
image takes 2.0 core-ms in batches of 32, 1.6 of 64, 1.4 of 128 (two Zen 3 cores)."""


class LayeredNet(nn.Module):
    """Base of the networks: subclasses hold the modules and write :meth:`stages`.

    ``fc6``, ``fc7`` and ``fc8`` may be absent (see :meth:`cut`): a network without ``fc8``
    serves its layers but has no logits; one whose ``fc8`` reads ``pool5`` has no ``fc6``.

    Attributes:
        input_side: height and width of the images it is made for, in pixels.
        division: which rows of the batch, and which units, it has here.
    """

    input_side = 224
    fc8: nn.Linear | None

    def __init__(self) -> None:
        super().__init__()
        self.division = Division()

    def stages(self) -> Stages:
        """What computes each layer from the one before it, in order, those that are absent
        left out: a stage yields its values by name, its own last."""
        raise NotImplementedError

    def entered(self, x: Tensor) -> Activation:
        """What the first stage takes, of (N, 3, H, W) float32 on the first slot."""
        return x

    def resumed(self, whole: Tensor) -> Activation:
        """What the stage after a layer takes, of its value as :meth:`taps` gives it."""
        return whole

    def walk(self, x: Tensor, *, after: str | None = None) -> Walk:
        """Computes (N, 3, H, W) float32 layer by layer, up to ``fc8``; or, ``after`` a layer
        named, what follows it, ``x`` being that layer's value.

        Yields each layer's name and value. Who takes a value of a ``:pre`` layer copies it
        before going on: the ReLU that follows overwrites it.
        """
        stages = self.stages()
        names = list(stages)
        begin = 0 if after is None else names.index(after) + 1
        value = self.entered(x) if after is None else self.resumed(x)
        for name in names[begin:]:
            steps = stages[name](value)
            for layer, value in steps:
                yield layer, value

    def fill(
        self, layer: str, tensors: Mapping[str, Tensor], generator: torch.Generator
    ) -> None:
        """Draws one layer's initial tensors, canonical and on the CPU, in place."""
        raise NotImplementedError

    def canonical_name(self, name: str) -> str:
        """The canonical name of a tensor in ``state_dict()``."""
        return name

    @property
    def slots(self) -> tuple[torch.device, ...]:
        """The devices it runs on: images go to the first, logits come from the first."""
        return (next(self.parameters()).device,)

    def place(self, devices: Sequence[torch.device]) -> None:
        """Moves it to ``devices``; a network of one slot goes to the first."""
        self.to(devices[0])

    def forward(self, x: Tensor, *, after: str | None = None) -> Tensor:
        """Logits (N, K) on the first slot, of (N, 3, input_side, input_side) float32, or of
        the value of the layer ``after``."""
        last: tuple[str, Activation] = ("image", x)
        for last in self.walk(x, after=after):  # noqa: B007 - values may go one by one
            pass
        name, logits = last
        assert name == "fc8", f"the network ends at {name}: it has no classifier"
        return joined(logits)

    def taps(self, x: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """The values of ``layers``, all from one pass that ends at the deepest of them.

        Args:
            x: (N, 3, H, W) float32 on the first slot.
            layers: names; the result has them in this order.

        Returns:
            (N, C, H', W') or (N, D) each, on the first slot, none of which aliases another.

        Raises:
            UnknownName: the network has no such layer.
        """
        if x.device.type != "cpu" or len(x) <= PIECE or torch.is_grad_enabled():
            return _taken(self._walk_to_prob(x), layers)
        maps = [name for name in self.stages() if name not in CLASSIFIER]
        early = [name for name in layers if name.removesuffix(":pre") in maps]
        last = maps[-1]
        wanted = early if len(early) == len(layers) else [*early, last]
        # Of about equal size, as a product for a few images may end in other bits.
        pieces = [
            _taken(self._walk_to_prob(piece), wanted)
            for piece in x.chunk(math.ceil(len(x) / PIECE))
        ]
        taken = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
        if wanted is not early:
            late = [name for name in layers if name not in early]
            walk = self._walk_to_prob(taken[last], after=last)
            taken |= _taken(walk, late, known=maps)
        return {name: taken[name] for name in layers}

    def _walk_to_prob(self, x: Tensor, *, after: str | None = None) -> Walk:
        last: tuple[str, Activation] = ("image", x)
        for last in self.walk(x, after=after):
            yield last
        name, logits = last
        if name == "fc8":
            yield "prob", F.softmax(joined(logits), dim=1)

    def layer_shapes(self, *, last: str | None = None) -> dict[str, tuple[int, ...]]:
        """Every layer it has, in order and up to ``last``, with the shape of one image's
        value.

        Found by a walk of one image, which takes 20 ms; with tensors that have no data torch
        would load two seconds' worth of its compiler at the first fully connected layer.
        """
        training = self.training
        image = torch.zeros(1, 3, self.input_side, self.input_side, device=self.slots[0])
        shapes: dict[str, tuple[int, ...]] = {}
        with torch.inference_mode():
            for name, value in self.eval()._walk_to_prob(image):
                shapes[name] = tuple(joined(value).shape[1:])
                if name == last:
                    break
        self.train(training)
        return shapes

    def cut(self, layer: str) -> None:
        """Takes ``layer``, one of :data:`CLASSIFIER`, and all after it away."""
        for name in CLASSIFIER[CLASSIFIER.index(layer) :]:
            for module in self.modules():
                if hasattr(module, name):
                    setattr(module, name, None)

    def canonical_state_dict(self) -> dict[str, Tensor]:
        """Its tensors by canonical name: the live ones, or copies where they are in parts."""
        return self.to_canonical(self.state_dict())

    def to_canonical(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors named as in ``state_dict()``, by canonical name."""
        state = {}
        for name, parts in self._parts().items():
            state[name] = _whole([own[part] for part in parts])
        return state

    def load_canonical(self, state: Mapping[str, Tensor]) -> None:
        """Copies ``state`` in; its names and shapes are the network's own, see
        :func:`alexkit.models.weights.fit_state`."""
        self.load_state_dict(self.from_canonical(state))

    def from_canonical(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Canonical tensors, named and divided as in ``state_dict()``."""
        own: dict[str, Tensor] = {}
        for name, parts in self._parts().items():
            rows = state[name].chunk(len(parts)) if len(parts) > 1 else (state[name],)
            own.update(zip(parts, rows, strict=True))
        return own

    def _parts(self) -> dict[str, list[str]]:
        """Canonical name -> the names in ``state_dict()`` whose rows (dim 0) make it up."""
        parts: dict[str, list[str]] = {}
        for name in self.state_dict():
            parts.setdefault(self.canonical_name(name), []).append(name)
        return parts


def initialise(net: LayeredNet, seed: int) -> None:
    """Draws every tensor anew, as the network's own source has it.

    Drawn on the CPU in canonical shapes: the values depend on ``seed`` alone, not on
    where the network is or in how many parts.
    """
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype)
        for name, tensor in net.canonical_state_dict().items()
    }
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, rest = name.partition(".")
        layers.setdefault(layer, {})[rest] = tensor
    for layer, tensors in layers.items():
        net.fill(layer, tensors, generator)
    net.load_canonical(state)


def without_data(net: Net) -> Net:
    """A copy of ``net`` whose tensors have shapes but no data (torch's "meta" device)."""
    return _remade(net, torch.device("meta"))


def with_room(net: Net) -> Net:
    """A copy of ``net`` on the CPU with tensors that are not yet filled, say of
    :func:`without_data`; ``to_empty`` would load a third of a second's worth of sympy."""
    return _remade(net, torch.device("cpu"))


def _remade(net: Net, device: torch.device) -> Net:
    def remade(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)

    # deepcopy takes what the memo has for these tensors, so no weights are copied.
    memo: dict[int, object] = {id(b): remade(b) for b in net.buffers()}
    memo.update(
        (id(p), nn.Parameter(remade(p), requires_grad=p.requires_grad))
        for p in net.parameters()
    )
    return copy.deepcopy(net, memo)


def _whole(parts: Sequence[Tensor]) -> Tensor:
    """The parts joined along dim 0 on the first one's device; a single one as it is."""
    first = parts[0]
    if len(parts) == 1:
        return first
    if first.is_meta:  # joining these loads a second's worth of torch's compiler
        rows = sum(len(part) for part in parts)
        return torch.empty(rows, *first.shape[1:], dtype=first.dtype, device=first.device)
    return torch.cat([first, *(part.to(first.device) for part in parts[1:])])


def joined(value: Activation) -> Tensor:
    """The whole of a layer; halves are joined along dim 1 on the first half's device."""
    if isinstance(value, Tensor):
        return value
    first, *others = value
    return torch.cat([first, *(part.to(first.device) for part in others)], dim=1)


def _taken(
    walk: Walk, layers: Sequence[str], *, known: Sequence[str] = ()
) -> dict[str, Tensor]:
    """The values of ``layers``, in this order, from a walk no deeper than they are.

    Raises:
        UnknownName: it meets no such layer; those it met, and ``known``, are named.
    """
    taken: dict[str, Tensor] = {}
    passed = list(known)
    for name, value in walk:
        passed.append(name)
        if name in layers:
            whole = joined(value)
            overwritten = whole is value and name.endswith(":pre")
            taken[name] = whole.clone() if overwritten else whole
        if len(taken) == len(set(layers)):
            break
    for name in layers:
        if name not in taken:
            raise UnknownName("layer", name, passed)
    return {name: taken[name] for name in layers}


def tapped(name: str, value: A) -> Steps[A]:
    """``value`` under its name."""
    yield name, value


def rectified(
    name: str, value: A, function: Callable[[Tensor], Tensor] = torch.relu_
) -> Steps[A]:
    """``value`` as ``name:pre``, then after ReLU, done in place, as ``name``.

    ``function`` stands for the ReLU; it works in place too.
    """
    yield f"{name}:pre", value
    for part in (value,) if isinstance(value, Tensor) else value:
        function(part)
    yield name, value
