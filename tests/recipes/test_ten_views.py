"""The paper's ten views, against the sentence they come from."""

from __future__ import annotations

import torch
from torch import nn

from alexkit.images.preprocess import Preprocess
from alexkit.recipes.ten_views import TEN, OverViews

SMALL = Preprocess(resize=12, crop=8)


class Averages(nn.Module):
    """Three logits of an image: weighted means of its channels."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = torch.linspace(-1, 1, x[0].numel()).view(x.shape[1:])
        return torch.stack([(weight**k * x).sum((1, 2, 3)) for k in (1, 2, 3)], dim=1)


def test_the_mean_of_the_softmax_of_ten_patches() -> None:
    generator = torch.Generator().manual_seed(0)
    squares = torch.randint(0, 256, (3, 12, 12, 3), generator=generator, dtype=torch.uint8)
    net = Averages()
    patches = []
    for top, left in ((0, 0), (0, 4), (4, 0), (4, 4), (2, 2)):
        patch = squares[:, top : top + 8, left : left + 8]
        patches += [patch, patch.flip(2)]
    p = torch.stack([net(SMALL.normalise(patch)).softmax(dim=1) for patch in patches])
    assert p.std(dim=0).max() > 0.05, "views that all look the same would show nothing"
    found = OverViews(net, SMALL)(squares)
    torch.testing.assert_close(found.exp(), p.mean(dim=0))
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(3))
    assert len(TEN) == len(patches)
