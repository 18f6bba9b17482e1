"""Layer-wise adaptive rates for very large batches: You, Gitman, Ginsburg, "Large Batch
Training of Convolutional Networks", arXiv 1708.03888, algorithm 1. torch has none.

With weights w, gradient g, weight decay β and trust η, a layer's rate is multiplied by

    λ = η |w| / (|g| + β |w|)

and its step is λ (g + β w) through the momentum. Here the gradient becomes that, so that
:func:`alexkit.training.optim.descend` does the rest, with a weight decay of 0 of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

TRUST = 0.001
"""η (arXiv 1708.03888 §5)."""


@torch.no_grad()
def rescale(weights: Iterable[nn.Parameter], *, weight_decay: float) -> None:
    """Changes the gradients of ``weights``, one layer each, in place.

    Leave biases and batch norm out: their rate is the plain one. Where weights or
    gradient are all 0 the ratio is 1.
    """
    for parameter in weights:
        gradient = parameter.grad
        if gradient is None:
            continue
        size, slope = parameter.norm(), gradient.norm()
        ratio = TRUST * size / (slope + weight_decay * size)
        # Chosen on the device: asking for the numbers would wait for it, layer by layer.
        ratio = torch.where((size > 0) & (slope > 0), ratio, torch.ones_like(ratio))
        gradient.add_(parameter, alpha=weight_decay).mul_(ratio)
