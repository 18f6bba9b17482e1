"""What the networks are made of, each constant with the place it comes from.

Marks: P = Krizhevsky, Sutskever, Hinton, NIPS 2012, by section; CAF = BVLC/caffe.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alexkit.models.division import Division

FC_WIDTH = 4096
"""Units of fc6 and of fc7 (P §3.5)."""

POOL5_SIDE = 6
"""Height and width of pool5 at a network's own input size."""

DROPOUT = 0.5
"""The chance that a unit of fc6 or fc7 is dropped (P §4.2)."""

TRANSFORM_BYTES = 3 * 2**24
"""Of a convolution's weights transformed at a time; conv4's whole would take 100 MB a core."""

LRN_REACH = 2
"""Maps to each side that a response is divided by: n = 5 with the map itself (P §3.3)."""


def max_pool(x: Tensor, *, ceil: bool = False, size: int = 3) -> Tensor:
    """Overlapping 3 x 3 pooling at stride 2 (P §3.4) of (N, C, H, W).

    ``ceil`` keeps a last window that hangs over the right and bottom edge. A ``size`` of 2
    does not overlap.
    """
    if x.device.type == "cpu" and not torch.is_grad_enabled():
        # A tenth of the time that maps in plain order take, copy included.
        x = x.contiguous(memory_format=torch.channels_last)
    return F.max_pool2d(x, size, 2, ceil_mode=ceil)


def in_one_row(x: Tensor) -> Tensor:
    """(N, D) of maps (N, C, H, W), averaged to 6 x 6 first where images had another size
    than the network's own; (N, D) as it is."""
    if x.ndim > 2 and x.shape[-2:] != (POOL5_SIDE, POOL5_SIDE):
        x = F.adaptive_avg_pool2d(x, POOL5_SIDE)
    return x.flatten(1)


def response_norm(x: Tensor, *, coefficient: float, k: float) -> Tensor:
    """Local response normalisation across maps (P §3.3): x / (k + coefficient * S)^0.75,
    where S sums x² over the map and its two neighbours to each side, fewer at the ends.

    The square and the sum are float32 at least, whatever ``x`` is; the result is as ``x``.

    Args:
        x: (N, C, H, W).
        coefficient: what multiplies the plain sum. P's α is that factor (1e-4); Caffe and
            torch first divide their α by n = 5.
        k: 2 in P, 1 in Caffe.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    maps = x.shape[1]
    # Shifted slices of the padded squares, in pairs: 5 times as fast on a CPU as the 3-d
    # average pooling inside torch's own local_response_norm, and equal to it.
    squares = F.pad(wide.square(), (0, 0, 0, 0, LRN_REACH, LRN_REACH))
    # narrow, not [:, a:b]: torch 2.6 records that as a condition on the number of images.
    pairs = squares.narrow(1, 0, maps + 3) + squares.narrow(1, 1, maps + 3)
    total = pairs.narrow(1, 0, maps) + pairs.narrow(1, 2, maps)
    total.add_(squares.narrow(1, 2 * LRN_REACH, maps))
    # β = 3/4 as two square roots: pow costs half as much again.
    root = total.mul_(coefficient).add_(k).rsqrt_()
    return (wide * root * root.sqrt()).to(x.dtype)


def dropped(
    x: Tensor, chance: float, division: Division, *, training: bool, of_units: bool = False
) -> Tensor:
    """Dropout as torch has it, scaled in training, of (B, D); equal to ``F.dropout`` of the
    whole batch whoever has which part of it (see :meth:`Division.noise`)."""
    if not training:
        return x
    (noise,) = division.noise((x,), lambda ones: F.dropout(ones, chance), of_units=of_units)
    return x * noise


Across = Callable[[Tensor], Tensor]
"""A tensor into its sum over all processes; a gradient passes through it."""


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that uses, and keeps, its running statistics once it is frozen.

    Attributes:
        across: sums over the processes that share a batch; None where one has it all.
    """

    across: Across | None = None

    def forward(self, x: Tensor) -> Tensor:
        return _batch_norm(self, x)


class BatchNorm1d(nn.BatchNorm1d):
    """As :class:`BatchNorm2d`, for (N, D)."""

    across: Across | None = None

    def forward(self, x: Tensor) -> Tensor:
        return _batch_norm(self, x)


def _batch_norm(norm: BatchNorm1d | BatchNorm2d, x: Tensor) -> Tensor:
    if norm.across is not None and norm.training and norm.weight.requires_grad:
        return _joint_batch_norm(norm, x, norm.across)
    # One value a channel, the last batch's single image, has no variance to learn from.
    several = x.numel() > x.shape[1]
    learning = norm.training and norm.weight.requires_grad and several
    if learning and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    return F.batch_norm(
        x,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        training=learning,
        momentum=norm.momentum or 0.0,
        eps=norm.eps,
    )


def _joint_batch_norm(norm: BatchNorm1d | BatchNorm2d, x: Tensor, across: Across) -> Tensor:
    """As in one process that has the whole batch: mean and variance are of all its rows.

    The variance is of the differences from the mean, as E[x²] - E[x]² would lose digits.
    Sums are float32 at least.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [dim for dim in range(x.ndim) if dim != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    values = wide.new_full((1,), x.numel() / x.shape[1])
    sums = across(torch.cat((values, wide.sum(over))))
    count, mean = sums[:1], sums[1:] / sums[0]
    centred = wide - mean.view(shape)
    variance = across(centred.square().sum(over)) / count
    with torch.no_grad():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        share, several = norm.momentum or 0.0, count > 1
        unbiased = variance * count / (count - 1).clamp(min=1)
        for kept, new in ((norm.running_mean, mean), (norm.running_var, unbiased)):
            kept.copy_(torch.where(several, kept.lerp(new.to(kept.dtype), share), kept))
        norm.num_batches_tracked.add_(several.squeeze(0))
    # A single value has no variance: what is known from before serves, as in one process.
    mean = torch.where(several, mean, norm.running_mean)
    variance = torch.where(several, variance, norm.running_var)
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    normed = (wide - mean.view(shape)) * scale.view(shape) + norm.bias.view(shape)
    return normed.to(x.dtype)


class Conv2d(nn.Conv2d):
    """A convolution, (N, C, H, W) to (N, C', H', W'); on a CPU, where no gradients are wanted
    and torch has one thread, by NNPACK's Fourier transforms of 8 x 8 or 16 x 16 pixels, if it
    is one they are for.

    Of AlexNet's conv2 to conv5 on a Zen 3 core that takes 8.0 ms an image in batches of 32,
    where oneDNN's direct sums (3.13) take 12.9; and the values are nearer to those in float64,
    by a factor of 10 (1.5e-6 against 1.5e-5 where their standard deviation is 1). A processor
    with AVX-512 has twice the speed in oneDNN alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or not self._by_transforms(x):
            return super().forward(x)
        assert isinstance(self.padding, tuple)
        outputs, inputs = self.weight.shape[:2]
        # Its weights transformed, 16 x 16 for each pair of maps, are what takes the memory.
        most = max(1, TRANSFORM_BYTES // (inputs * 16 * 16 * 4))
        count = self.groups * math.ceil(outputs / self.groups / most)
        biases = [None] * count if self.bias is None else self.bias.chunk(count)
        of_groups = x.contiguous().chunk(self.groups, 1)
        parts = [
            torch._nnpack_spatial_convolution(
                of_groups[i * self.groups // count], weight, bias, self.padding
            )
            for i, (weight, bias) in enumerate(
                zip(self.weight.chunk(count), biases, strict=True)
            )
        ]
        return parts[0] if count == 1 else torch.cat(parts, 1)

    def _by_transforms(self, x: Tensor) -> bool:
        """Whether NNPACK computes it faster: of a single image it takes another, less exact
        way, and of a graph that is recorded it would become a part. It keeps as many threads
        as the first to call it had, so that it is called only where that is one, as in the
        streams of :mod:`alexkit.features.streams`."""
        if torch.compiler.is_compiling():  # first: a question may fix what it asks about
            return False
        return (
            x.device.type == "cpu"
            and x.dtype == torch.float32
            and len(x) > 1
            and torch.get_num_threads() == 1
            and self.stride == (1, 1)
            and torch.backends.cpu.get_cpu_capability() == "AVX2"
            and torch.backends.nnpack.is_available()  # type: ignore[no-untyped-call]
            and not torch.is_autocast_enabled("cpu")
        )


class NormedConv2d(Conv2d):
    """A convolution without bias, then batch normalisation; its tensors are ``weight`` and
    ``bn.*``. (N, C, H, W) to (N, C', H', W')."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int,
    ) -> None:
        super().__init__(
            inputs, outputs, size, stride=stride, padding=padding, groups=groups, bias=False
        )
        self.bn = BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.bn(super().forward(x))
        return normed


class NormedLinear(nn.Linear):
    """As :class:`NormedConv2d`, for (N, D) to (N, D')."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)
        self.bn = BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.bn(super().forward(x))
        return normed


def fill_gaussian(
    tensors: Mapping[str, Tensor], generator: torch.Generator, *, std: float, bias: float
) -> None:
    """Weights from N(0, ``std``²), every bias equal to ``bias`` (P §5)."""
    tensors["weight"].normal_(0.0, std, generator=generator)
    tensors["bias"].fill_(bias)


def fill_torch(tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """What ``reset_parameters`` of torch's Conv2d and Linear draws, in the same order."""
    weight = tensors["weight"]
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
    bound = 1 / math.sqrt(weight[0].numel())
    tensors["bias"].uniform_(-bound, bound, generator=generator)


def fill_msra(tensors: Mapping[str, Tensor], generator: torch.Generator) -> None:
    """Weights from N(0, 2 / inputs), as CAF's filler "msra"; biases 0, batch norm at rest."""
    for name, tensor in tensors.items():
        if name == "weight":
            tensor.normal_(0.0, math.sqrt(2 / tensor[0].numel()), generator=generator)
        else:
            tensor.fill_(1 if name in ("bn.weight", "bn.running_var") else 0)
