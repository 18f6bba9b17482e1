"""Views against the same squares cut by torchvision and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms import functional as tv

from alexkit.errors import UsageError
from alexkit.images.preprocess import Preprocess
from alexkit.images.views import Views
from tests.conftest import textured_rgb

PREPROCESS = Preprocess()
SIZES = [(300, 420), (420, 300), (256, 256), (257, 511), (90, 120)]


def views_of(text: str, rgb: np.ndarray, preprocess: Preprocess = PREPROCESS) -> torch.Tensor:
    """(V, crop, crop, 3) of one image."""
    views = Views.parse(text)
    square = torch.from_numpy(views.to_square(preprocess)(rgb))[None]
    cuts = views.cut(square, preprocess)
    assert len(cuts) == len(views)
    return torch.cat(cuts)


@pytest.mark.parametrize("size", SIZES)
def test_the_ten_views_are_the_papers(size: tuple[int, int]) -> None:
    """Four corners and the centre of the 256 × 256 square, then each mirrored."""
    rgb = textured_rgb(1, *size)
    square = torch.from_numpy(PREPROCESS.train_square(rgb)).permute(2, 0, 1)
    assert square.shape == (3, 256, 256)
    five = tv.five_crop(square, [224, 224])
    expected = [*five, *(tv.hflip(crop) for crop in five)]
    got = views_of("ten", rgb).permute(0, 3, 1, 2)
    for view, crop in zip(got, expected, strict=True):
        assert torch.equal(view, crop)


@pytest.mark.parametrize("size", SIZES)
def test_the_centre_is_the_same_square_whatever_the_views(size: tuple[int, int]) -> None:
    rgb = textured_rgb(2, *size)
    centre = torch.from_numpy(PREPROCESS.square(rgb))
    assert torch.equal(views_of("center", rgb)[0], centre)
    assert torch.equal(views_of("flip", rgb), torch.stack([centre, centre.flip(1)]))
    assert torch.equal(views_of("ten", rgb)[4], centre)
    assert torch.equal(views_of("grid:3", rgb)[4], centre)


def test_a_grid_goes_from_corner_to_corner_row_by_row() -> None:
    preprocess = Preprocess(resize=256, crop=227, mode="squash")
    rgb = textured_rgb(3, 256, 256)
    cuts = views_of("grid:2", rgb, preprocess)
    for cut, (top, left) in zip(cuts, [(0, 0), (0, 29), (29, 0), (29, 29)], strict=True):
        np.testing.assert_array_equal(cut, rgb[top : top + 227, left : left + 227])
    assert [v.left for v in Views.parse("grid:3").places(preprocess)[:3]] == [0, 14, 29]


@pytest.mark.parametrize("text", ["centre", "11", "grid", "grid:1", "grid:a", "grid:-2", ""])
def test_what_are_no_views(text: str) -> None:
    with pytest.raises(UsageError, match="not known"):
        Views.parse(text)


def test_views_that_would_all_be_the_same() -> None:
    whole = Preprocess(resize=224, crop=224)
    for text in ("ten", "grid:2"):
        with pytest.raises(UsageError, match="224 pixels"):
            Views.parse(text).places(whole)
    assert len(Views.parse("flip").places(whole)) == 2
    with pytest.raises(UsageError, match="--views grid:40"):
        Views.parse("grid:40").places(PREPROCESS)
    assert str(Views.parse("grid:33")) == "grid:33"
    assert len({(v.top, v.left) for v in Views.parse("grid:33").places(PREPROCESS)}) == 33**2
