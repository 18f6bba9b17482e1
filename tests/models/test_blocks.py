"""Normalisation equals torch's, in every number type; frozen batch norm stands still; a
convolution is the same sum whoever computes it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from alexkit.models.blocks import Conv2d, NormedConv2d, NormedLinear, response_norm


@pytest.mark.parametrize("maps", [1, 2, 3, 5, 48])
@pytest.mark.parametrize(("coefficient", "k"), [(1e-4, 2.0), (2e-5, 1.0)])
def test_response_norm_equals_torchs(maps: int, coefficient: float, k: float) -> None:
    x = 100 * torch.randn(2, maps, 7, 6, generator=torch.Generator().manual_seed(0))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = response_norm(ours, coefficient=coefficient, k=k)
    # torch divides its alpha by the window of 5.
    expected = F.local_response_norm(theirs, 5, alpha=5 * coefficient, beta=0.75, k=k)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)
    assert (got - x).abs().max() > 10, "it must have divided"
    for y in (got, expected):
        y.square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=2e-6, atol=1e-3)


def test_response_norm_has_the_gradient_of_what_it_computes() -> None:
    x = torch.randn(1, 7, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: response_norm(t, coefficient=0.1, k=2.0), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_response_norm_squares_in_float32(dtype: torch.dtype) -> None:
    x = torch.full((1, 6, 3, 3), 3000.0)  # the square is beyond float16
    got = response_norm(x.to(dtype), coefficient=1e-4, k=2.0)
    assert got.dtype == dtype
    expected = response_norm(x, coefficient=1e-4, k=2.0)
    torch.testing.assert_close(got.float(), expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(NormedConv2d(3, 8, 3, groups=1), (4, 3, 6, 6)), (NormedLinear(5, 8), (16, 5))],
    ids=["conv", "linear"],
)
def test_batch_norm_learns_until_it_is_frozen(
    layer: NormedConv2d | NormedLinear, shape: tuple[int, ...]
) -> None:
    x = 3 + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    dims = (0, 2, 3) if len(shape) == 4 else (0,)
    y = layer.train()(x)
    torch.testing.assert_close(y.mean(dims), torch.zeros(8), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(dims, unbiased=False), torch.ones(8), rtol=0, atol=1e-3)
    assert layer.bn.num_batches_tracked == 1
    layer.eval()
    expected = layer(x)
    layer.train().requires_grad_(False)
    before = {name: t.clone() for name, t in layer.bn.state_dict().items()}
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)
    for name, tensor in layer.bn.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)


@pytest.mark.parametrize(("size", "groups"), [(5, 2), (3, 1)])
def test_a_convolution_without_gradients_is_no_less_exact(size: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)
    conv = Conv2d(48, 64, size, padding=size // 2, groups=groups)
    x = torch.randn(9, 48, 13, 13, generator=generator)
    expected = F.conv2d(
        x.double(),
        conv.weight.double(),
        None if conv.bias is None else conv.bias.double(),
        padding=size // 2,
        groups=groups,
    )
    direct = conv(x)
    assert direct.requires_grad
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        found = conv(x)
        few = conv(x[3:5])
    torch.set_num_threads(threads)
    error = (found.double() - expected).abs().max()
    assert error <= (direct.double() - expected).abs().max()
    torch.testing.assert_close(few, found[3:5], rtol=0, atol=0)
