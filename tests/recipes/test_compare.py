"""``alexkit compare`` on feature files made here: what it says, writes and refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from alexkit.cli.app import run
from alexkit.recipes import compare
from tests.conftest import Capsys, feature_file
from tests.recipes.conftest import Refused

Make = Callable[..., Path]
N = 40


def content(seed: int = 0) -> dict[str, np.ndarray]:
    x = np.maximum(np.random.default_rng(seed).normal(0.2, 1, (N, 6, 5, 4)), 0)
    return {"conv5": x, "fc7": x.reshape(N, -1)[:, :50] ** 1.5}


@pytest.fixture
def make(here: Path) -> Make:
    def make(
        name: str,
        layers: dict[str, np.ndarray],
        *,
        bad: tuple[int, ...] = (),
        order: Any = None,
        views: int = 0,
    ) -> Path:
        order = np.arange(len(next(iter(layers.values())))) if order is None else order
        feature_file(
            here / name,
            {k: v[order] for k, v in layers.items()},
            paths=[f"img{row:03d}.jpg" for row in order],
            bad=dict.fromkeys(bad, "truncated"),
            provenance={"stored_views": views} if views else {},
        )
        return Path(name)

    return make


def read(folder: str = "runs/compare-001") -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with np.load(Path(folder) / "compare.npz", allow_pickle=False) as arrays:
        return json.loads((Path(folder) / "compare.json").read_text()), dict(arrays)


@pytest.mark.parametrize("metric", ["correlation", "euclidean"])
def test_it_is_what_scipy_says(
    make: Make, metric: str, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setattr(compare, "SLAB_BYTES", 4 * N * 20)  # one channel of conv5 at a time
    layers = content()
    make("F.h5", layers)
    assert run(["compare", "F.h5", "--metric", metric, "--bootstrap", "50"]) == 0
    told, arrays = read()
    rdms = [pdist(x.reshape(N, -1), metric) for x in layers.values()]
    for found, expected in zip((arrays["rdm_0"], arrays["rdm_1"]), rdms, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    (pair,) = told["pairs"]
    assert (pair["first"], pair["second"]) == ("conv5", "fc7")
    assert pair["rsa"]["mean"] == pytest.approx(spearmanr(*rdms).statistic, abs=1e-4)
    assert pair["rsa"]["low"] < pair["rsa"]["mean"] < pair["rsa"]["high"]
    assert arrays["cka"][0, 1] == pair["cka"]
    assert f"{pair['cka']:.3f}" in capsys.readouterr().out
    files = {p.name for p in Path("runs/compare-001").iterdir()}
    assert files >= {"compare.json", "compare.npz", "compare.png", "run.json"}
    assert "scratch" not in files


def test_files_are_matched_by_path_and_bad_rows_left_out(make: Make) -> None:
    layers = content()
    make("A.h5", {"fc7": layers["fc7"]}, bad=(4,))
    make("B.h5", {"fc7": layers["fc7"]}, order=np.random.default_rng(0).permutation(N))
    assert run(["compare", "A.h5", "B.h5", "--bootstrap", "20"]) == 0
    told, arrays = read()
    assert told["stimuli"] == N - 1
    assert told["pairs"][0]["rsa"]["mean"] == 1
    assert told["pairs"][0]["cka"] == pytest.approx(1, abs=1e-6)
    assert "img004.jpg" not in arrays["paths"]
    np.testing.assert_array_equal(arrays["rdm_0"], arrays["rdm_1"])


def test_views_are_averaged(make: Make) -> None:
    layers = content()
    both = {k: np.stack([v - 1, v + 3], axis=1) for k, v in layers.items()}
    make("A.h5", layers)
    make("V.h5", both, views=2)
    assert run(["compare", "A.h5", "V.h5", "--metric", "euclidean", "--bootstrap", "20"]) == 0
    _, arrays = read()
    np.testing.assert_allclose(arrays["rdm_0"], arrays["rdm_2"], rtol=1e-4)


def test_the_same_seed_gives_the_same_numbers(make: Make) -> None:
    make("F.h5", content())
    for out in ("a", "b"):
        assert run(["compare", "F.h5", "--out", out]) == 0
    a, b = (read(out)[0] for out in "ab")
    assert a | {"seconds": 0} == b | {"seconds": 0}


@pytest.mark.parametrize(
    ("layers", "words", "status", "said"),
    [
        ({"fc7": content()["fc7"]}, [], 2, "one layer only"),
        (content(), ["--layer", "fc6"], 2, "fc6"),
        ({k: v[:3] for k, v in content().items()}, [], 3, "3 images"),
        (content() | {"fc8": np.ones((N, 3))}, [], 3, "fc8 has 40 rows without a correlation"),
        (content(), ["--bootstrap", "0"], 2, "too small"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    make: Make,
    layers: dict[str, np.ndarray],
    words: list[str],
    status: int,
    said: str,
    refused: Refused,
) -> None:
    make("F.h5", layers)
    refused(["compare", "F.h5", *words], status, said)


def test_layers_that_tell_nothing_apart_are_shown_without_a_number(
    make: Make, capsys: Capsys
) -> None:
    make("F.h5", content() | {"fc8": np.ones((N, 3))})
    assert run(["compare", "F.h5", "--metric", "euclidean", "--bootstrap", "5"]) == 0
    told, _ = read()
    assert told["pairs"][-1]["rsa"] == {"mean": None, "low": None, "high": None}
    assert told["pairs"][-1]["cka"] is None
    assert "–" in capsys.readouterr().out


def test_other_images_are_named(make: Make, capsys: Capsys) -> None:
    make("A.h5", content())
    make("B.h5", content(), order=np.arange(N - 1))
    assert run(["compare", "A.h5", "B.h5", "--quiet"]) == 4
    assert "'img039.jpg' is in A.h5 but not in B.h5" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_half_written(
    make: Make, small_disk: Path, capsys: Capsys
) -> None:
    many = np.random.default_rng(0).normal(size=(900, 8))
    make("F.h5", {"fc6": many, "fc7": many[:, :4]})
    assert run(["compare", "F.h5", "--out", str(small_disk / "run"), "--quiet"]) == 5
    assert "needs 16.2 MB" in capsys.readouterr().err
    left = {p.name for p in (small_disk / "run").iterdir()}
    assert not left & {"compare.json", "compare.npz", "scratch"}
