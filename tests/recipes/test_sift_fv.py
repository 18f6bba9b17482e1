"""``alexkit features --layer sift-fv``: what was the state of the art before AlexNet."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexkit.cli.app import run
from alexkit.events import BadImage, Event, Note, Warned
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.recipes import sift_fv
from alexkit.recipes.options import FeaturesOptions
from tests.conftest import Capsys, photos_in, textured_rgb
from tests.recipes.conftest import Refused
from tests.recipes.struck import struck

pytest.importorskip("skimage.feature", reason="the extra sift is not installed")

LAYER = ("sift-fv",)
LENGTH = 256 * (2 * 64 + 1)


@pytest.fixture(autouse=True)
def photos(here: Path) -> Path:
    """Split photos, and beside them one of each kind that has no descriptors."""
    counts = {"train/ant": 2, "train/bee": 2, "val/ant": 2, "val/bee": 1}
    folder = photos_in(here / "photos", counts)
    (folder / "val/bee/broken.jpg").write_bytes(b"no image")
    Image.new("RGB", (1, 1), "red").save(folder / "val/bee/dot.png")
    Image.new("RGB", (300, 200), "grey").save(folder / "val/bee/flat.png")
    checks = (np.indices((6, 5)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(folder / "val/bee/tiny.png")
    return folder


def make(data: Path, out: str, **changes: object) -> list[Event]:
    events: list[Event] = []
    options = FeaturesOptions(data=data, layer=LAYER, out=Path(out), **changes)  # type: ignore[arg-type]
    sift_fv.run(options, events.append)
    return events


def test_file_codebook_and_bad_images(photos: Path) -> None:
    events = make(photos, "f.h5")
    with FeatureStore.open(Path("f.h5")) as store:
        assert store.complete
        assert store.layers == {"sift-fv": (LENGTH,)}
        status = dict(zip(store.paths, store.status.tolist(), strict=True))
        reasons = {store.paths[row]: reason for row, reason in store.reasons.items()}
        vectors = store.matrix("sift-fv")
        about = store.provenance
    assert status.pop("val/bee/broken.jpg") == Status.UNREADABLE
    assert status.pop("val/bee/dot.png") == status.pop("val/bee/flat.png") == Status.NON_FINITE
    assert set(status.values()) == {Status.DONE}
    assert reasons["val/bee/dot.png"] == "has no SIFT descriptor: every patch of it is flat"
    assert status["val/bee/tiny.png"] == Status.DONE, "enlarged, as for a network"
    assert len({e.path for e in events if isinstance(e, BadImage)}) == 3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    recipe = about["recipe"]
    assert recipe["fitted_on"] == "training images"
    assert recipe["codebook"]["components"] == 256
    assert recipe["descriptor"]["bin_sizes"] == [4, 6, 8, 10]
    assert set(recipe["versions"]) >= {"scikit-image", "scikit-learn"}
    assert len(about["codebook_sha256"]) == 64
    assert any(isinstance(e, Warned) and "rests on" in e.text for e in events)
    assert not any("has seen" in e.text for e in events if isinstance(e, Note))


def test_the_codebook_sees_training_images_only(photos: Path) -> None:
    make(photos, "a.h5")
    for path in (photos / "val").rglob("photo*.jpg"):
        Image.fromarray(textured_rgb(77)).save(path)
    make(photos, "b.h5")
    Image.fromarray(textured_rgb(78)).save(photos / "train/ant/photo000.jpg")
    make(photos, "c.h5")
    found = []
    for name in ("a.h5", "b.h5", "c.h5"):
        with FeatureStore.open(Path(name)) as store:
            found.append((store.provenance["codebook_sha256"], store.matrix("sift-fv", "val")))
    assert found[0][0] == found[1][0] != found[2][0]
    assert not np.array_equal(found[0][1], found[1][1])


def test_the_same_bits_whatever_the_threads_and_batches(photos: Path) -> None:
    make(photos, "a.h5", workers=1)
    make(photos, "b.h5", workers=3, batch_size=2)
    with FeatureStore.open(Path("a.h5")) as a, FeatureStore.open(Path("b.h5")) as b:
        np.testing.assert_array_equal(a.matrix("sift-fv"), b.matrix("sift-fv"))


def test_without_splits_it_is_said_that_all_were_seen(tmp_path: Path) -> None:
    events = make(photos_in(tmp_path / "flat", {"ant": 2, "bee": 2}), "f.h5")
    told = [e.text for e in events if isinstance(e, Note) and "has seen" in e.text]
    assert len(told) == 1
    with FeatureStore.open(Path("f.h5")) as store:
        assert store.provenance["recipe"]["fitted_on"] == "all images"


COMMAND = ["features", "photos", "--layer", "sift-fv"]
CASES = [
    ([*COMMAND, "--layer", "fc7"], 2, "two commands"),
    ([*COMMAND, "--weights", "imagenet"], 2, "leave --weights out"),
    ([*COMMAND, "--model", "alexnet"], 2, "leave --model out"),
    ([*COMMAND, "--pool", "max"], 2, "leave --pool out"),
    ([*COMMAND, "--views", "ten"], 2, "leave --views out"),
    ([*COMMAND, "--average", "features"], 2, "leave --average out"),
    ([*COMMAND, "--compress", "gzip"], 2, "leave --compress out"),
    ([*COMMAND, "--decode", "fast"], 2, "leave --decode out"),
    ([*COMMAND, "--device", "cuda"], 2, "leave --device out"),
    ([*COMMAND, "--strict"], 3, "broken.jpg"),
    (["features", "--layer", "sift-fv"], 2, "alexkit features photos/ --layer sift-fv"),
    (["features", "nowhere", "--layer", "sift-fv"], 3, "nowhere"),
    (["features", "photos/val/bee/dot.png", "--layer", "sift-fv"], 3, "dot.png"),
    (["features", "only-flat", "--layer", "sift-fv"], 3, "more than one colour"),
    (["features", "test-only", "--layer", "sift-fv"], 3, "training images"),
]


@pytest.mark.parametrize(("words", "status", "told"), CASES)
def test_bad_input(words: list[str], status: int, told: str, refused: Refused) -> None:
    for folder in ("only-flat/ant", "only-flat/bee"):
        Path(folder).mkdir(parents=True)
        Image.new("RGB", (50, 50), "white").save(Path(folder) / "a.png")
    photos_in(Path("test-only"), {"test/ant": 1, "test/bee": 1})
    refused(words, status, told)
    if "--strict" not in words:  # which met the bad image after some good ones
        assert not list(Path().rglob("*.h5*")), "no file is left that nothing is in"


def test_a_missing_package_is_told_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: Capsys
) -> None:
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    assert run(COMMAND) == 2
    assert 'pip install "alexkit[sift]"' in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_killed_run_goes_on_with_its_codebook(photos: Path, tmp_path: Path) -> None:
    command = [*COMMAND, "--batch-size", "1", "--out", "f.h5", "--workers", "1"]
    codebook = Path("f.h5.codebook.npz")
    child = struck([*command, "--json"], '"stage": "features", "done": 2,', signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    with FeatureStore.open(Path("f.h5.partial")) as store:
        assert 2 <= (store.status == Status.DONE).sum() < len(store)
    before = codebook.read_bytes()
    hidden = codebook.rename("hidden.npz")
    assert run(command) == 4, "never rows of two codebooks in one file"
    hidden.rename(codebook)
    assert run(command) == 0
    assert codebook.read_bytes() == before
    make(photos, "whole.h5")
    with FeatureStore.open(Path("f.h5")) as a, FeatureStore.open(Path("whole.h5")) as b:
        np.testing.assert_array_equal(a.matrix("sift-fv"), b.matrix("sift-fv"))
        np.testing.assert_array_equal(a.status, b.status)


def test_eval_and_info_read_it(photos: Path, capsys: Capsys) -> None:
    assert run([*COMMAND, "--out", "f.h5"]) == 0
    assert run(["eval", "f.h5", "--out", "judged"]) == 0
    assert run(["info", "f.h5"]) == 0
    assert run(["info", "f.h5", "--verify"]) == 2
    assert "sift-fv" in capsys.readouterr().err
