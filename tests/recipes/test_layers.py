"""`alexkit features`: many layers, poolings, views, number types and filters in one file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from alexkit.cli.app import run
from alexkit.events import Event, StageAdvanced, Warned, silent
from alexkit.features.store import FeatureStore
from alexkit.images.decode import decode
from alexkit.models.zoo import load_any
from alexkit.recipes import layers
from alexkit.recipes.api import extract
from alexkit.recipes.extraction import settle_batch_size
from alexkit.recipes.options import FeaturesOptions
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import ResultOf

NETWORK = ["--model", "squeezenet1_1", "--weights", "random"]
MAP = "features.3.cat"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos_in(tmp_path_factory.mktemp("photos") / "photos", {"ant": 3, "bee": 3})


@pytest.fixture
def extracted(photos: Path, here: Path) -> Callable[..., FeatureStore]:
    """What `alexkit features` with these words makes, open."""

    def make(*words: str, rc: int = 0) -> FeatureStore:
        path = here / f"{len(list(here.iterdir()))}.h5"
        network = [] if "--weights" in words else NETWORK
        assert run(["features", str(photos), *network, *words, "--out", str(path)]) == rc
        return FeatureStore.open(path)

    return make


def test_views_are_an_axis_and_their_average_is_their_mean(extracted) -> None:
    words = ("--layer", MAP, "--pool", "avg", "--views", "ten")
    apart, mean = extracted(*words), extracted(*words, "--average", "features")
    centre = extracted("--layer", MAP, "--pool", "avg")
    assert (apart.layers, apart.views) == ({MAP: (10, 128)}, 10)
    assert (mean.layers, mean.views) == ({MAP: (128,)}, 0)
    rows = apart.rows()
    values = apart.values(MAP, rows)
    np.testing.assert_allclose(values.mean(1), mean.values(MAP, rows), rtol=0, atol=1e-5)
    np.testing.assert_array_equal(values[:, 4], centre.values(MAP, rows))
    assert apart.provenance["preprocessing"]["views"] == "ten"
    assert (mean.provenance["average"], mean.provenance["pool"]) == ("features", "avg")


def test_what_an_interrupted_file_was_made_with_is_named(
    photos: Path, here: Path, capsys: Capsys
) -> None:
    first = ["--layer", MAP, "--pool", "avg", "--views", "flip"]
    command = ["features", str(photos), *NETWORK, "--out", "f.h5"]
    assert run([*command, *first]) == 0
    (here / "f.h5").rename(here / "f.h5.partial")
    with h5py.File(here / "f.h5.partial", "r+") as file:
        file["rows/status"][2:] = 0
        file.attrs["complete"] = False
    for changed, told in [
        (["--layer", MAP, "--pool", "max", "--views", "flip"], "pool is 'avg' there and 'max'"),
        (["--layer", MAP, "--pool", "avg", "--views", "ten"], "preprocessing.views is 'flip'"),
        ([*first, "--average", "features"], "average is 'none' there and 'features'"),
        ([*first, "--dtype", "float16"], "dtype is 'float32' there and 'float16'"),
        ([*first, "--compress", "gzip"], "compress is 'none' there and 'gzip'"),
        ([*first, "--layer", "features.0"], "layers is ['features.3.cat'] there"),
        ([*first, "--seed", "1"], "weights is"),
    ]:
        assert run([*command, *changed]) == 4, changed
        assert told in " ".join(capsys.readouterr().err.split())
    assert run([*command, *first]) == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pool", "mean"], "--pool mean is not known"),
        (["--pool", "grid:99"], "too small for --pool grid:99"),
        (["--views", "five"], "--views five is not known"),
        (["--views", "grid:40"], "--views grid:40 needs more"),
        (["--average", "features"], "one view only"),
        (["--layer", "features.3.cats"], "did you mean features.3.cat"),
    ],
)
def test_wrong_words_are_told_and_nothing_is_written(
    photos: Path, here: Path, capsys: Capsys, words: list[str], told: str
) -> None:
    command = ["features", str(photos), *NETWORK, "--layer", MAP, *words]
    assert run([*command, "--out", "f.h5"]) == 2
    assert told in " ".join(capsys.readouterr().err.split())
    assert list(here.iterdir()) == []


def test_layers_are_listed_without_data(
    here: Path, capsys: Capsys, result_of: ResultOf
) -> None:
    words = ["--model", "alexnet-owt", "--list-layers", "--pool", "avg", "--views", "flip"]
    result = result_of(["features", *words, "--dtype", "float16"])
    listed = {layer["name"]: layer for layer in result["layers"]}
    assert listed["conv1"] == {
        "name": "conv1", "aliases": ["features.1"], "shape": [2, 64], "bytes": 2 * 64 * 2
    }  # fmt: skip
    assert listed["fc7"]["bytes"] == 2 * 4096 * 2
    assert run(["features", "--model", "resnet18", "--list-layers"]) == 0
    assert "layer4.1, layer4" in " ".join(capsys.readouterr().out.split())
    assert run(["features", "--list-layers", "--weights", "imagenet", "--pool", "grid:7"]) == 0
    out = capsys.readouterr()
    assert "left out: pool5 is 6 × 6" in out.err
    assert run(["features", "--model", "alexnet", "--list-layers", "--pool", "x"]) == 2
    assert list(here.iterdir()) == []


def test_maps_in_another_order_are_not_pooled() -> None:
    options = FeaturesOptions(model="swin_t", weights="random", pool="avg")
    listed = {told["name"] for told in layers.list_layers(options, silent)["layers"]}
    assert "features.1.1.add_1" not in listed  # (H, W, C)
    assert "head" in listed


def test_what_does_not_fit_is_refused_before_anything_is_written(
    photos: Path, small_disk: Path, capsys: Capsys
) -> None:
    words = ["features", str(photos), *NETWORK, "--layer", "features.0"]
    for out in (small_disk / "f.h5", small_disk / "run"):
        assert run([*words, "--out", str(out)]) == 5
        told = " ".join(capsys.readouterr().err.split())
        assert "needs 18.9 MB, and 2.1 MB are free" in told
        assert list(small_disk.iterdir()) == []
    one = ["features", str(photos), *NETWORK, "--layer", "features.12.cat", "--pool", "grid:10"]
    assert run([*one, "--out", str(small_disk / "f.h5")]) == 0  # 1.2 MB
    assert run([*one, "--out", str(small_disk / "g.h5"), "--compress", "gzip"]) == 5
    assert [path.name for path in small_disk.iterdir()] == ["f.h5"]


def test_the_first_batch_beyond_float16_stops_before_anything_is_written(
    photos: Path, here: Path, capsys: Capsys
) -> None:
    backbone = load_any("squeezenet1_1", "random", seed=0)
    state = backbone.net.network.state_dict()
    state["features.0.bias"] += 70_000
    torch.save(state, here / "large.pth")
    command = ["features", str(photos), "--model", "squeezenet1_1", "--weights", "large.pth"]
    words = [*command, "--layer", "features.0", "--pool", "avg"]
    assert run([*words, "--dtype", "float16", "--out", "f.h5"]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert "more than float16 can hold; nothing was written" in err
    assert "--dtype float32" in err
    assert [path.name for path in here.iterdir()] == ["large.pth"]
    assert run([*words, "--out", "f.h5"]) == 0


def test_a_compressed_file_holds_the_same(extracted) -> None:
    words = ("--layer", MAP, "--pool", "9k", "--dtype", "float16")
    plain, packed = extracted(*words), extracted(*words, "--compress", "gzip")
    assert plain.dtype == packed.dtype == np.float16
    rows = plain.rows()
    np.testing.assert_array_equal(plain.values(MAP, rows), packed.values(MAP, rows))


def test_photos_that_change_while_they_are_read(tmp_path: Path) -> None:
    """One that is gone is a bad row, one that was replaced is told of, one more is no row."""
    folder = photos_in(tmp_path / "photos", {"ant": 12, "bee": 12})
    last, gone = (folder / "bee" / f"photo0{number}.jpg" for number in (10, 11))
    warned: list[str] = []

    def change(event: Event) -> None:
        if isinstance(event, Warned):
            warned.append(event.text)
        if isinstance(event, StageAdvanced) and gone.exists():
            gone.unlink()
            last.write_bytes((folder / "ant" / "photo001.jpg").read_bytes() + b"more")
            (folder / "bee" / "photo999.jpg").write_bytes(last.read_bytes())

    words: dict[str, Any] = {"model": "squeezenet1_1", "weights": "random", "batch_size": 4}
    out = tmp_path / "F.h5"
    with extract(folder, MAP, out=out, pool="avg", workers=1, report=change, **words) as store:
        assert len(store) == 24
        assert store.reasons == {23: "the file is missing"}
        assert store.provenance["changed_while_read"] is True
    assert len(warned) == 1
    assert "changed while they were read" in warned[0]
    with extract(tmp_path / "photos/ant", MAP, out=tmp_path / "G.h5", **words) as store:
        assert "changed_while_read" not in store.provenance


def test_the_smaller_batch_where_features_are_many() -> None:
    options = FeaturesOptions(model="alexnet", views="grid:16", layer=("conv1",))
    backbone = load_any("alexnet", "random", seed=0)
    stored = layers.Stored.of(options, backbone)
    assert stored.row_bytes == 256 * 96 * 55 * 55 * 4
    device = torch.device("cpu")
    assert settle_batch_size(None, backbone, stored, device, silent) == 3


class TestRealPhotos:
    """With the real convolutions; skipped where they are not at hand."""

    @pytest.fixture
    def sample(self, real_data: Path, tmp_path: Path) -> list[str]:
        """Command line for a dozen real photos with the real weights."""
        found = sorted((real_data / "flowers").glob("*/*.jpg"))[::50][:12]
        assert len(found) == 12
        (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in found))
        weights = real_data / "weights" / "alexnet-torchvision-features.pth"
        return ["features", str(tmp_path / "list.txt"), "--weights", str(weights)]

    def test_ten_views_are_ten_separate_crops(self, sample: list[str], tmp_path: Path) -> None:
        words = ["--layer", "pool5", "--views", "ten", "--average", "features"]
        assert run([*sample, *words, "--out", str(tmp_path / "ten.h5")]) == 0
        backbone = load_any(None, Path(sample[-1]), seed=0)
        backbone.net.eval()
        preprocess = backbone.preprocess
        with FeatureStore.open(tmp_path / "ten.h5") as store:
            found = store.values("pool5", np.arange(12))
            squares = [
                preprocess.train_square(decode(Path(p).read_bytes(), exif=False).rgb)
                for p in Path(sample[1]).read_text().split()
            ]
        total = torch.zeros(12, 256, 6, 6)
        for top, left in [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]:
            crops = np.stack([s[top : top + 224, left : left + 224] for s in squares])
            for pixels in (crops, crops[:, :, ::-1].copy()):
                with torch.inference_mode():
                    x = preprocess.normalise(torch.from_numpy(pixels))
                    total += backbone.net.taps(x, ["pool5"])["pool5"]
        np.testing.assert_allclose(found, total.numpy() / 10, rtol=1e-5, atol=1e-5)
