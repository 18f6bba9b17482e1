"""Batches of pixels in, batches of features out, row for row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alexkit.choices import FeatureDtype
from alexkit.errors import OutOfMemory
from alexkit.features.layout import DTYPES, RowProblem, Status, not_finite
from alexkit.features.pooling import Pooling
from alexkit.images.batches import Batch, Remark

Cut = Callable[[Tensor], Sequence[Tensor]]

LEAST_ROWS = 4
"""Images of a batch on a CPU; fewer are filled up. MKL's matrix product takes other paths, to
other last bits, for 1, 2 or 3 rows; from 4 on, in one thread, a row's values do not depend on
the rows it is with (measured for 1 to 300 rows of fc6, fc7 and fc8)."""

TORCH_DTYPES = {FeatureDtype.FLOAT32: torch.float32, FeatureDtype.FLOAT16: torch.float16}


class TappedNet(Protocol):
    """A network whose layers can be asked for by name:
    :class:`alexkit.models.layered.LayeredNet` or
    :class:`alexkit.models.torchvision_nets.TorchvisionNet`."""

    def eval(self) -> object: ...

    def taps(self, x: Tensor, layers: Sequence[str], /) -> dict[str, Tensor]:
        """Values of ``layers`` for (B, 3, H, W) float32; one pass for all of them."""
        ...


@dataclass(frozen=True)
class FeatureBatch:
    """Features of some rows, and what is wrong with the others of the same batch.

    Attributes:
        rows: (B) int64; their order is that of the batch.
        values: (B, …) for each layer, in the asked number type, all finite; has no layers
            where B is 0.
        problems: the rows that have no features: images that could not be read (status 2),
            and rows with a value that is not finite in the asked number type (status 3).
        remarks: what was repaired or converted in images that were read.
    """

    rows: npt.NDArray[np.int64]
    values: Mapping[str, npt.NDArray[Any]]
    problems: tuple[RowProblem, ...]
    remarks: tuple[Remark, ...] = ()


def extract(
    net: TappedNet,
    batches: Iterable[Batch],
    layers: Sequence[str],
    *,
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    dtype: FeatureDtype,
    pooling: Pooling = Pooling(),  # noqa: B008 - frozen
    cut: Cut | None = None,
    average: bool = False,
    autocast: torch.dtype | None = None,
) -> Iterator[FeatureBatch]:
    """Runs batches through a network, one pass each (or one a view) for all layers.

    The network is put into evaluation mode (no dropout, stored batch-norm statistics) and is
    taken to be on its device already.

    Args:
        net: anything with ``taps``.
        batches: uint8 pixels (B, H, W, 3) and the rows they are of.
        layers: names, no name twice.
        normalise: uint8 (B, H, W, 3) on ``device`` -> float32 (B, 3, H, W).
        device: where the pixels go.
        dtype: number type of the values; float16 is cast on the device, so that half the
            bytes come back.
        pooling: of convolutional maps, in float32.
        cut: what the network sees of the pixels, e.g.
            :meth:`alexkit.images.views.Views.cut`: V views (B, S, S, 3) uint8, which become
            an axis of the values, (B, V, …). None is the pixels as they are, and no axis.
        average: the mean over the views, in float32, instead of that axis.
        autocast: number type of the network's products, e.g. bfloat16; None is float32.

    Raises:
        OutOfMemory: a batch does not fit into the device's memory.
    """
    assert len(set(layers)) == len(layers) > 0
    net.eval()
    # One batch stays in work on a GPU, so that it computes while the one before is written.
    ahead = 1 if device.type == "cuda" else 0
    begun: deque[Callable[[], FeatureBatch]] = deque()
    for batch in batches:
        taps = None
        if batch.rows.size:
            try:
                taps = _stored(
                    _forward(
                        net,
                        batch.pixels,
                        layers,
                        normalise,
                        device,
                        pooling,
                        cut,
                        average,
                        autocast,
                    ),
                    dtype,
                )
            except torch.OutOfMemoryError:
                raise _out_of_memory(batch.rows.size, device) from None
        begun.append(partial(_finished, batch, taps, dtype))
        if len(begun) > ahead:
            yield begun.popleft()()
    while begun:
        yield begun.popleft()()


def _out_of_memory(images: int, device: torch.device) -> OutOfMemory:
    return OutOfMemory(
        f"a batch of {images} images does not fit into the memory of {device}",
        hint=f"use a smaller --batch-size, e.g. {max(1, images // 2)}",
    )


def _finished(batch: Batch, taps: _Copies | None, dtype: FeatureDtype) -> FeatureBatch:
    """What came of a batch, once its copies are here."""
    problems = tuple(
        RowProblem(int(bad.row), Status.UNREADABLE, bad.reason) for bad in batch.bad
    )
    rows = np.asarray(batch.rows, np.int64)
    if taps is None:
        return FeatureBatch(rows, {}, problems, batch.remarks)
    if taps.done is not None:
        taps.done.synchronize()
    peaks, values = _arrays(taps.peaks), _arrays(taps.values)
    broken = _not_finite(rows, peaks, dtype)
    whole = ~np.isin(rows, [problem.row for problem in broken])
    if broken:
        values = {layer: value[whole] for layer, value in values.items()}
    return FeatureBatch(rows[whole], values, problems + broken, batch.remarks)


# Not a `with` around the loop: that would leave inference mode on in whoever reads it.
@torch.inference_mode()
def _forward(
    net: TappedNet,
    pixels: Tensor,
    layers: Sequence[str],
    normalise: Callable[[Tensor], Tensor],
    device: torch.device,
    pooling: Pooling,
    cut: Cut | None,
    average: bool,
    autocast: torch.dtype | None,
) -> dict[str, Tensor]:
    """(B, …) of each layer, pooled; (B, V, …) where there are views that stay apart."""
    there = pixels.to(device)
    images = len(there)
    if device.type == "cpu" and images < LEAST_ROWS:
        there = torch.cat([there, there[-1:].expand(LEAST_ROWS - images, -1, -1, -1)])
    # A pass a view: the memory that whole maps take does not grow with the views.
    with torch.autocast(device.type, autocast, enabled=autocast is not None):
        passes = [
            {
                name: pooling.apply(tap[:images].float())
                for name, tap in net.taps(normalise(view), layers).items()
            }
            for view in ([there] if cut is None else cut(there))
        ]
    if cut is None:
        return passes[0]
    stacked = {name: torch.stack([taps[name] for taps in passes], dim=1) for name in layers}
    return {name: s.mean(dim=1) for name, s in stacked.items()} if average else stacked


@dataclass(frozen=True)
class _Copies:
    """On the CPU, or on their way there until ``done``: per layer the farthest from zero of
    each row as computed (B), and all values (B, …)."""

    peaks: Mapping[str, Tensor]
    values: Mapping[str, Tensor]
    done: torch.cuda.Event | None


@torch.inference_mode()
def _stored(taps: Mapping[str, Tensor], dtype: FeatureDtype) -> _Copies:
    peaks = {name: tap.flatten(1).abs().amax(dim=1) for name, tap in taps.items()}
    # A network in channels-last order gives maps in that order; files have (C, H, W).
    values = {
        name: tap.to(TORCH_DTYPES[dtype], memory_format=torch.contiguous_format)
        for name, tap in taps.items()
    }
    here = [
        {name: tensor.to("cpu", non_blocking=True) for name, tensor in tensors.items()}
        for tensors in (peaks, values)
    ]
    done = None
    if any(tap.is_cuda for tap in taps.values()):
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record()
    return _Copies(here[0], here[1], done)


def _arrays(tensors: Mapping[str, Tensor]) -> dict[str, npt.NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _not_finite(
    rows: npt.NDArray[np.int64],
    peaks: Mapping[str, npt.NDArray[Any]],
    dtype: FeatureDtype,
) -> tuple[RowProblem, ...]:
    """One problem for each row of which some layer is beyond ``dtype``, or NaN or infinite."""
    stored = DTYPES[dtype]
    found: dict[int, RowProblem] = {}
    for layer, peak in peaks.items():
        with np.errstate(over="ignore"):
            odd = ~np.isfinite(peak.astype(stored))
        for i in np.flatnonzero(odd).tolist():
            reason = not_finite(layer, float(peak[i]), stored)
            found.setdefault(i, RowProblem(int(rows[i]), Status.NON_FINITE, reason))
    return tuple(found[i] for i in sorted(found))
