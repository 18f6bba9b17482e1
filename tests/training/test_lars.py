"""Rates by layer, against the equations of arXiv 1708.03888."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from alexkit.training.lars import rescale


def test_the_gradient_becomes_the_step_of_the_paper() -> None:
    layer = nn.Parameter(torch.tensor([[3.0, 4.0]]))  # |w| = 5
    layer.grad = torch.tensor([[0.6, 0.8]])  # |g| = 1
    rescale([layer], weight_decay=0.2)
    # λ = 0.001 * 5 / (1 + 0.2 * 5) = 0.0025, and g + βw = (1.2, 1.6)
    assert layer.grad.tolist()[0] == pytest.approx([0.0025 * 1.2, 0.0025 * 1.6])


def test_a_layer_of_zeros_keeps_its_gradient() -> None:
    layer = nn.Parameter(torch.zeros(2, 2))
    layer.grad = torch.full((2, 2), 0.5)
    rescale([layer], weight_decay=0.2)
    assert torch.equal(layer.grad, torch.full((2, 2), 0.5))
