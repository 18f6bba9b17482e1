"""Where the work of a step is done: here, in one process that has all of it.

:mod:`alexkit.training.parallel` has the placements of several processes. The loops ask their
placement whenever a number is of the whole batch, and know no more of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from alexkit.models.division import Division
from alexkit.models.layered import LayeredNet
from alexkit.training.checkpoint import Checkpoint


class Placement:
    """One process, on one device or with a tower on each of two.

    Attributes:
        name: the word of ``--parallel`` it stands for.
        rank, world: this process of how many that share each batch.
        moved: bytes this process has sent since the start, by what they were.
    """

    name = "single"
    rank = 0
    world = 1

    def __init__(self) -> None:
        self.moved: dict[str, int] = {}

    def count(self, what: str, nbytes: int) -> None:
        """Adds to :attr:`moved`."""
        self.moved[what] = self.moved.get(what, 0) + nbytes

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    def forward(self, net: nn.Module, x: Tensor) -> Tensor:
        """The logits of own rows, in training."""
        logits: Tensor = net(x)
        return logits

    def meet(self, net: LayeredNet, places: Sequence[int], size: int, last: str = "") -> None:
        """All processes begin the same batch.

        Args:
            net: hears which rows it gets.
            places: where in the batch the rows are that could be read here, rising.
            size: images of the whole batch, readable or not.
            last: the file that was read last.
        """
        del last
        net.division.size = size
        whole = len(places) == size
        net.division.places = None if whole else torch.as_tensor(places, dtype=torch.int64)

    def images(self, own: int) -> int:
        """Images of the batch that all have met for; ``own`` are here."""
        return own

    def weighed(self, loss: Tensor, own: int, total: int) -> Tensor:
        """A mean over ``own`` rows as what to derive, so that the gradient that the step uses
        is of the mean over all ``total``."""
        del own, total
        return loss

    def reduce(self) -> None:
        """Gradients of own rows into those of all, where that is not done yet."""

    def length(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The length of the whole gradient, of the gradients here by parameter name."""
        return nn.utils.get_total_norm(list(gradients.values()))

    def summed(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes."""
        return list(values)

    def agreed(self, *wishes: bool) -> tuple[bool, ...]:
        """Of each wish, whether any process has it."""
        return wishes

    def texts(self, own: str) -> list[str]:
        """What each process has to say, by rank."""
        return [own]

    def whole(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors by their name in the network, those in parts put together."""
        return dict(named)

    def times(self, name: str) -> int:
        """How often what is here of a tensor of the network makes up the whole."""
        del name
        return 1

    @contextmanager
    def blaming(self) -> Iterator[None]:
        """Within it, an error of the connection becomes one that names who is behind it."""
        yield

    def parts(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of whole tensors what belongs here."""
        return dict(named)

    def spread(self, found: Checkpoint | None) -> Checkpoint | None:
        """What the first process found, for all."""
        return found


class Towers(Placement):
    """The paper's model parallelism: a tower on each of two devices, in one process.

    :attr:`moved` counts what both devices send: ``images`` to the second one, and maps and
    units that a tower reads of the other one (before conv3, fc6, fc7 and fc8, P §3.2) with
    their gradients, as ``activations``. Of two slots on one device it is what would be sent.

    Args:
        net: of two towers.
    """

    name = "towers"

    def __init__(self, net: LayeredNet) -> None:
        super().__init__()
        net.division = _Apart(self)


class _Apart(Division):
    """All rows and units in one process, which counts what goes from device to device."""

    def __init__(self, placement: Towers) -> None:
        self._placement = placement

    def brought(self, half: Tensor, device: torch.device) -> Tensor:
        there = half.to(device)
        image = half.ndim == 4 and half.shape[1] == 3
        count = partial(self._placement.count, "images" if image else "activations")
        count(half.nbytes)
        if there.requires_grad:
            there.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: count(gradient.nbytes)
            )
        return there
