"""``hybrid``: data-parallel convolutions, a model-parallel classifier.

"One weird trick for parallelizing convolutional neural networks" (arXiv 1404.5997).
Convolutions are as in ``data``: 4 % of the parameters of AlexNet, 92 % of the work. Of fc6
and fc7 every process has some units, and computes them for all rows: pool5 of all rows is
gathered, units of fc6 are gathered for fc7, and of fc8 every process has the columns that
read its own units of fc7, so that only sums of logits travel back to where the row is.

The gatherings and their transposes are written out: torch's DTensor has no share of rows that
differs by process from step to step, which an image that cannot be read makes of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from alexkit.events import Reporter, silent
from alexkit.models.division import Division, Halves
from alexkit.models.layered import CLASSIFIER, LayeredNet
from alexkit.training.launch import Ranks
from alexkit.training.parallel import Linear, Together


class Hybrid(Together):
    """Some units of the classifier, and all convolutions, in every process.

    The network is changed in place: make its optimiser, and copies of it, afterwards.

    Args:
        net: with fc6, fc7 and fc8, on its device.
    """

    name = "hybrid"

    def __init__(
        self,
        net: LayeredNet,
        ranks: Ranks,
        *,
        narrow: bool = False,
        report: Reporter = silent,
    ) -> None:
        super().__init__(ranks, narrow=narrow, report=report)
        self._cuts = cuts(net)
        for name, tensor in self.parts(net.state_dict(keep_vars=True)).items():
            if name in self._cuts:
                _put(net, name, tensor)
        net.division = _Divided(self)
        self._replicated = {
            name: p for name, p in net.named_parameters() if name not in self._cuts
        }
        for name, module in net.named_modules():
            # Of its own units a process has all rows.
            if hasattr(module, "across") and f"{name}.weight" not in self._cuts:
                module.across = self.across

    def reduce(self) -> None:
        gradients = [p.grad for p in self._replicated.values() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        total = self.reduced(flat.bfloat16() if self.narrow else flat, "gradients")
        for gradient, part in zip(
            gradients, torch.split(total, [g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view(gradient.shape))

    def length(self, gradients: Mapping[str, Tensor]) -> Tensor:
        own = [g for name, g in gradients.items() if name in self._cuts]
        same = [g for name, g in gradients.items() if name not in self._cuts]
        total = self.reduced(nn.utils.get_total_norm(own).square(), "sums")
        return (total + nn.utils.get_total_norm(same).square()).sqrt()

    def whole(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        joined = dict(named)
        for name, tensor in named.items():
            if name not in self._cuts:
                continue
            dim, blocks = self._cuts[name]
            every = self.every(tensor.detach().contiguous())
            pieces = [torch.unflatten(part, dim, (blocks, -1)) for part in every]
            joined[name] = torch.stack(pieces, dim + 1).flatten(dim, dim + 2)
        return joined

    def times(self, name: str) -> int:
        return self.world if name in self._cuts else 1

    def parts(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = dict(named)
        for name, (dim, blocks) in self._cuts.items():
            if name in own:
                pieces = torch.unflatten(own[name].detach(), dim, (blocks, self.world, -1))
                part = pieces.select(dim + 1, self.rank).flatten(dim, dim + 1)
                own[name] = part.clone(memory_format=torch.contiguous_format)
        return own


def cuts(net: LayeredNet) -> dict[str, tuple[int, int]]:
    """The tensors that ``hybrid`` divides, by their name in ``net.state_dict()``: along which
    dimension, and how many blocks of it (towers) are divided each."""
    found: dict[str, tuple[int, int]] = {}
    towers = sum(name.split(".")[-1] == "fc7" for name, _ in net.named_modules())
    for name, tensor in net.state_dict().items():
        layers = [part for part in name.split(".") if part in CLASSIFIER]
        if layers and layers[0] != "fc8" and tensor.ndim:
            found[name] = (0, 1)
        elif name == "fc8.weight":
            found[name] = (1, towers)
    return found


def divisible(net: LayeredNet) -> int:
    """Into how many parts ``hybrid`` could divide the units of ``net``: any divisor of it; 0
    where there is no fc6 and fc7 to divide."""
    state, towers = net.state_dict(), net.canonical_state_dict()
    if not {"fc6.weight", "fc7.weight"} <= towers.keys():
        return 0
    return min(len(state[name]) for name, (dim, _) in cuts(net).items() if dim == 0)


def _put(net: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, own = name.rpartition(".")
    module = net.get_submodule(path)
    before = getattr(module, own)
    if isinstance(before, nn.Parameter):
        tensor = nn.Parameter(tensor, requires_grad=before.requires_grad)
    setattr(module, own, tensor)


class _Divided(Division):
    """Own rows of the batch in the convolutions, own units of all rows in the classifier.

    Rows of all are in the order of processes, not of the batch.
    """

    def __init__(self, placement: Hybrid) -> None:
        self._placement = placement

    def rows(self, h: Halves) -> Halves:
        return tuple(Linear.apply(part, self._gather_rows, self._scatter_rows) for part in h)

    def units(self, h: Halves) -> Halves:
        return tuple(Linear.apply(part, self._gather_units, self._scatter_units) for part in h)

    def logits(self, fc8: nn.Linear, x: Tensor) -> Tensor:
        partial = nn.functional.linear(x, fc8.weight)
        own: Tensor = Linear.apply(partial, self._scatter_rows, self._gather_rows)
        return own + fc8.bias.to(own.dtype)

    def noise(self, h: Halves, draw: Callable[[Tensor], Tensor], *, of_units: bool) -> Halves:
        if not of_units:
            return super().noise(h, draw, of_units=False)
        placement, first = self._placement, h[0]
        shape = (self.size, placement.world * sum(part.shape[1] for part in h))
        drawn = draw(torch.ones(shape, device=first.device, dtype=first.dtype))
        drawn = drawn[placement.all_places.to(first.device)]
        blocks = torch.unflatten(drawn, 1, (len(h), placement.world, -1))
        return tuple(blocks[:, block, placement.rank] for block in range(len(h)))

    def _gather_rows(self, x: Tensor) -> Tensor:
        """(B, D) of own rows into (N, D) of all."""
        at = self._placement
        room = max(at.counts)
        joined = at.gathered(nn.functional.pad(x, (0, 0, 0, room - len(x))))
        rows = joined.view(at.world, room, -1)
        parts = [part[:count] for part, count in zip(rows, at.counts, strict=True)]
        return torch.cat(parts).to(x.dtype)

    def _scatter_rows(self, x: Tensor) -> Tensor:
        """The transpose: of all rows, summed over processes, the own ones."""
        at = self._placement
        room = max(at.counts)
        shares = torch.split(x, at.counts)
        parts = [nn.functional.pad(part, (0, 0, 0, room - len(part))) for part in shares]
        own = at.scattered(torch.cat(parts))
        return own[: at.counts[at.rank]].to(x.dtype)

    def _gather_units(self, x: Tensor) -> Tensor:
        """(N, U) of own units into (N, world · U) of all."""
        return self._placement.gathered(x.t()).t().to(x.dtype)

    def _scatter_units(self, x: Tensor) -> Tensor:
        """The transpose."""
        return self._placement.scattered(x.t()).t().to(x.dtype)
