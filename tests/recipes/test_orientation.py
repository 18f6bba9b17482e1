"""--exif: who obeys the camera's tag, what the default is, and that the choice travels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from alexkit.choices import Exif
from alexkit.cli.app import run
from alexkit.events import Chosen, Event, silent
from alexkit.features.store import FeatureStore
from alexkit.images.folder import open_folder
from alexkit.images.preprocess import Preprocess
from alexkit.recipes.orientation import like_imagenet, settle_exif
from alexkit.recipes.run_dir import read_record
from tests.conftest import Capsys, photos_in, textured_rgb

RANDOM = ["--weights", "random", "--model", "resnet18"]
TRAIN = ["train", "photos", "--model", "alexnet-bn", "--head", "gap"]
TURN = 0x0112


@pytest.mark.parametrize(
    ("classes", "answer"),
    [
        (["n01440764", "n02102040"], True),
        (["n01440764", "tench"], False),
        (["n0144076", "n02102040"], False),
        ([], False),
    ],
)
def test_imagenet_is_known_by_its_class_names(classes: list[str], answer: bool) -> None:
    assert like_imagenet(classes) is answer


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("classes", [["ant", "bee"], ["n01440764"], []])
@pytest.mark.parametrize("own", [False, True])
def test_what_is_asked_wins_and_else_the_rule(
    trained: bool, classes: list[str], own: bool, tmp_path: Path
) -> None:
    source = open_folder(photos_in(tmp_path, dict.fromkeys(classes or ["."], 1)))
    record = Preprocess(exif=trained)
    for asked in Exif:
        got = settle_exif(record, asked, source, silent, own_photos=own)
        assert got.exif is (asked is Exif.APPLY)
    told: list[Event] = []
    got = settle_exif(record, None, source, told.append, own_photos=own)
    assert got.exif is (trained or (own and classes != ["n01440764"]))
    (chosen,) = told
    assert isinstance(chosen, Chosen)
    assert (chosen.name, chosen.value) == ("exif", "apply" if got.exif else "ignore")


@pytest.fixture
def photos(here: Path) -> Path:
    """Photos with a tag "turn by 180°", and under ``upright`` the same ones turned so."""
    for number, name in enumerate(["ant", "bee"]):
        for i in range(3):
            pixels = textured_rgb(10 * number + i)
            tags = Image.Exif()
            tags[TURN] = 3
            for folder, image, exif in (
                ("photos", pixels, tags),
                ("upright", pixels[::-1, ::-1], Image.Exif()),
            ):
                place = here / folder / name
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.ascontiguousarray(image)).save(place / f"{i}.png", exif=exif)
    return here


def features(data: str, out: str, *words: str) -> np.ndarray:
    assert run(["features", data, "--layer", "conv1", "--out", out, *words]) == 0
    with FeatureStore.open(Path(out)) as store:
        return np.asarray(store.matrix("conv1"))


def test_features_see_what_was_asked(photos: Path) -> None:
    upright = features("upright", "u.h5", *RANDOM)
    applied = features("photos", "a.h5", *RANDOM, "--exif", "apply")
    ignored = features("photos", "i.h5", *RANDOM)
    np.testing.assert_array_equal(applied, upright)
    assert (ignored != upright).any()
    for name, exif in (("a.h5", True), ("i.h5", False)):
        with FeatureStore.open(Path(name)) as store:
            assert store.provenance["preprocessing"]["exif"] is exif


@pytest.mark.parametrize(
    ("command", "words", "exif"),
    [
        (["finetune", "photos", *RANDOM], [], True),
        (["finetune", "photos", *RANDOM], ["--exif", "ignore"], False),
        (TRAIN, [], False),
        (TRAIN, ["--exif", "apply"], True),
    ],
)
def test_the_choice_travels_with_the_weights(
    command: list[str], words: list[str], exif: bool, photos: Path
) -> None:
    assert run([*command, *words, "--epochs", "1", "--out", "fitted"]) == 0
    with safe_open("fitted/weights/best.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["preprocess"])["exif"] is exif
    assert ("exif" in read_record(Path("fitted"))["derived"]) is (not words)
    features("photos", "F.h5", "--weights", "fitted")
    with FeatureStore.open(Path("F.h5")) as store:
        assert store.provenance["preprocessing"]["exif"] is exif


@pytest.mark.parametrize("made", ["ignore", "apply"])
def test_a_pack_is_as_it_was_made(made: str, photos: Path, capsys: Capsys) -> None:
    assert run(["pack", "photos", "--out", "x.pack", "--exif", made]) == 0
    words = ["finetune", "x.pack", *RANDOM, "--epochs", "1"]
    assert run([*words, "--out", "fitted"]) == 0
    told = capsys.readouterr().err
    assert f"exif: {made} (as the pack was made)" in told
    assert "warning: " not in told
    with safe_open("fitted/weights/best.safetensors", framework="np") as file:
        assert json.loads(file.metadata()["preprocess"])["exif"] is (made == "apply")
    other = "apply" if made == "ignore" else "ignore"
    assert run([*words, "--out", "other", "--exif", other]) == 2
    assert f"x.pack was packed with --exif {made}" in capsys.readouterr().err
    assert not Path("other").exists()


def test_nonsense_is_refused(photos: Path, capsys: Capsys) -> None:
    assert run(["features", "photos", *RANDOM, "--exif", "maybe"]) == 2
    assert "maybe" in capsys.readouterr().err
