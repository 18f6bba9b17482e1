"""Networks on images: equal to torchvision's own pipeline, classes by name, nothing lost."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.transforms import functional as transforms

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from alexkit.images.preprocess import Preprocess
from alexkit.models.records import describe
from alexkit.models.weights import write_weights
from alexkit.probes.saved import load_probe
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import working_in

CLASSES = ("ant", "bee", "cat")
WNIDS = ("n01440764", "n01443537", "n01484850")
NET = "squeezenet1_1"  # 5 MB


def network(classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(3)
    net: torch.nn.Module = torchvision.models.get_model(NET, num_classes=classes).eval()
    with torch.no_grad():  # scores that lie apart
        for name, tensor in net.named_parameters():
            if name.startswith("classifier"):
                tensor.mul_(40)
    return net


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos in class folders and a flat one, and weights of one network in three forms."""
    folder = tmp_path_factory.mktemp("predict")
    photos_in(folder / "photos", dict.fromkeys(CLASSES, 3))
    photos_in(folder / "flat", {"": 2})
    state = network().state_dict()
    write_weights(folder / "a.safetensors", state, describe(NET, CLASSES, Preprocess()))
    order = [2, 0, 1]
    turned = {k: v[order] if k.startswith("classifier") else v for k, v in state.items()}
    names = [CLASSES[at] for at in order]
    write_weights(folder / "b.safetensors", turned, describe(NET, names, Preprocess()))
    torch.save(state, folder / "plain.pth")
    return folder


def said(capsys: Capsys, words: Sequence[str], status: int = 0) -> Any:
    """The result that ``--json`` tells, or the error's two lines."""
    assert run([*words, "--json"]) == status, capsys.readouterr()
    told = capsys.readouterr()
    if status:
        error, hint = told.err.splitlines()
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        return error
    return json.loads(told.out.splitlines()[-1])["result"]


def expected(path: Path) -> dict[str, float]:
    """By torchvision alone."""
    image = transforms.resize(Image.open(path).convert("RGB"), 256)
    x = transforms.to_tensor(transforms.center_crop(image, 224))
    x = transforms.normalize(x, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.inference_mode():
        p = network()(x[None]).double().softmax(dim=1)[0].tolist()
    return dict(zip(CLASSES, p, strict=True))


def lines_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def by_name(prediction: dict[str, Any]) -> dict[str, float]:
    return {entry["class"]: entry["probability"] for entry in prediction["top"]}


@pytest.mark.parametrize("weights", [["a"], ["b"], ["a", "b"]], ids=str)
def test_probabilities_are_torchvisions_whatever_the_order_of_classes(
    place: Path, weights: list[str], capsys: Capsys
) -> None:
    words = [word for w in weights for word in ("--weights", f"{place}/{w}.safetensors")]
    result = said(capsys, ["predict", str(place / "photos"), *words])
    assert [result[k] for k in ("n", "judged", "bad", "split")] == [9, 9, 0, ""]
    right = 0
    for one in result["predictions"]:
        want = expected(Path(one["path"]))
        got = by_name(one)
        assert got == pytest.approx(want, abs=1e-5)
        assert list(got) == sorted(want, key=lambda name: -want[name])
        right += max(want, key=lambda name: want[name]) == Path(one["path"]).parent.name
    assert (result["top1"], result["top5"]) == (right / 9, 1.0)


def test_validate_counts_what_predict_says(place: Path, capsys: Capsys) -> None:
    with working_in(place):
        words = ["photos", "--weights", "b.safetensors", "--weights", "a.safetensors"]
        result = said(capsys, ["validate", *words])
        predicted = said(capsys, ["predict", *words])
        rows = lines_of(Path(result["run"]) / "predictions.csv")
        table = lines_of(Path(result["run"]) / "confusion.csv")
    assert {k: result[k] for k in ("top1", "top5", "split", "n")} == {
        "top1": predicted["top1"],
        "top5": 1.0,
        "split": "",
        "n": 9,
    }
    assert [row["predicted"] for row in rows] == [
        one["top"][0]["class"] for one in predicted["predictions"]
    ]
    own = [by_name(one)[Path(one["path"]).parent.name] for one in predicted["predictions"]]
    assert result["loss"] == pytest.approx(-np.log(own).mean(), abs=1e-6)
    assert sum(int(row.get(row["class"], 0)) for row in table) == round(9 * result["top1"])
    assert set(result["networks"]) == {"a.safetensors", "b.safetensors"}
    assert sum(b["n"] for b in result["calibration"]["bins"]) == 9
    with working_in(place):  # views change the numbers, and are mirrored pairs here
        flipped = said(capsys, ["validate", *words, "--views", "flip"])
        assert flipped["loss"] != result["loss"]


def test_of_equal_probabilities_the_first_class_counts_as_it_is_shown(
    place: Path, tmp_path: Path, capsys: Capsys
) -> None:
    state = {
        name: torch.zeros_like(tensor) if name.startswith("classifier") else tensor
        for name, tensor in network().state_dict().items()
    }
    write_weights(tmp_path / "even.safetensors", state, describe(NET, CLASSES, Preprocess()))
    words = ["predict", str(place / "photos"), "--weights", f"{tmp_path}/even.safetensors"]
    result = said(capsys, words)
    assert {one["top"][0]["class"] for one in result["predictions"]} == {"ant"}
    assert result["top1"] == pytest.approx(1 / 3)


def test_a_bad_image_is_told_and_the_others_are_predicted(
    place: Path, tmp_path: Path, capsys: Capsys
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    good = place / "photos/ant/photo000.jpg"
    words = ["--weights", str(place / "a.safetensors")]
    result = said(capsys, ["predict", str(broken), str(good), "gone.jpg", *words])
    first, second, third = result["predictions"]
    assert (first["top"], third["top"], third["error"]) == ([], [], "the file is missing")
    assert first["error"]
    assert by_name(second) == pytest.approx(expected(good), abs=1e-5)
    assert (result["n"], result["bad"]) == (1, 2)
    assert "none of the 1 images could be used" in said(
        capsys, ["predict", str(broken), *words], 3
    )
    assert "broken.jpg" in said(capsys, ["predict", str(broken), *words, "--strict"], 3)
    assert "there is no nowhere" in said(capsys, ["predict", "nowhere", *words], 3)
    assert "nothing matches" in said(capsys, ["predict", "nowhere*.jpg", *words], 3)


def test_patterns_lists_stdin_and_files_of_results(
    place: Path, tmp_path: Path, capsys: Capsys, monkeypatch: Any
) -> None:
    paths = sorted((place / "photos/bee").glob("*.jpg"))
    words = ["--weights", str(place / "a.safetensors"), "--top", "2"]
    stdin = io.TextIOWrapper(io.BytesIO("\n".join(map(str, paths[:2])).encode()))
    monkeypatch.setattr("sys.stdin", stdin)
    out = tmp_path / "new/found.csv"
    pattern = str(place / "photos/*/photo002.jpg")
    result = said(capsys, ["predict", "-", pattern, *words, "--out", str(out)])
    names = [one["path"] for one in result["predictions"]]
    assert names == [*map(str, paths[:2]), *(pattern.replace("*", c) for c in CLASSES)]
    rows = lines_of(out)
    assert [row["path"] for row in rows] == names
    assert [row["class_2"] for row in rows] == [
        one["top"][1]["class"] for one in result["predictions"]
    ]
    assert "exists" in said(capsys, ["predict", str(paths[0]), *words, "--out", str(out)], 2)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(map(str, paths)))
    assert run(["predict", str(listed), *words, "--csv", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "path,class,probability,class_2,probability_2,error"
    assert len(lines) == 4


def test_the_camera_is_obeyed_unless_told_otherwise(
    place: Path, tmp_path: Path, capsys: Capsys
) -> None:
    image = Image.open(place / "photos/cat/photo001.jpg")
    tag = Image.Exif()
    tag[0x0112] = 6
    turned, upright = tmp_path / "turned.png", tmp_path / "upright.png"
    image.rotate(90, expand=True).save(turned, exif=tag)
    image.save(upright)
    words = ["predict", str(turned), str(upright), "--weights", f"{place}/a.safetensors"]
    first, second = said(capsys, words)["predictions"]
    assert by_name(first) == by_name(second)
    first, second = said(capsys, [*words, "--exif", "ignore"])["predictions"]
    assert by_name(first) != by_name(second)


class TestClassesByName:
    def test_a_class_the_network_does_not_know_is_refused(
        self, place: Path, tmp_path: Path, capsys: Capsys
    ) -> None:
        photos_in(tmp_path / "d", {"ant": 1, "dog": 1, "cat": 1})
        words = ["--weights", str(place / "a.safetensors"), "--out", str(tmp_path / "run")]
        error = said(capsys, ["validate", str(tmp_path / "d"), *words], 4)
        assert "1 of the 3 classes of the data ('dog') are none of the 3" in error
        assert not (tmp_path / "run").exists()

    def test_weights_that_name_none_need_wordnet_ids_or_a_map(
        self, place: Path, tmp_path: Path, capsys: Capsys
    ) -> None:
        plain = ["--weights", str(place / "plain.pth"), "--model", NET]
        with working_in(tmp_path):
            error = said(capsys, ["validate", str(place / "photos"), *plain], 4)
            assert "3 of the 3 classes of the data ('ant', 'bee', 'cat') are none" in error
            # Folders called by WordNet ids: their sorted order is the outputs'.
            for name, wnid in zip(CLASSES, WNIDS, strict=True):
                (tmp_path / wnid).symlink_to(place / "photos" / name)
            known = said(
                capsys, ["validate", f"{place}/photos", "--weights", f"{place}/a.safetensors"]
            )
            told = said(capsys, ["validate", str(tmp_path), *plain, "--out", "runs/x"])
            assert told["loss"] == pytest.approx(known["loss"], abs=1e-6)
            # A flat folder, and a map that says which name is which output.
            (tmp_path / "map.txt").write_text(
                "".join(f"{w} : {c}, an animal\n" for w, c in zip(WNIDS, CLASSES, strict=True))
            )
            flat = tmp_path / "flat"
            flat.mkdir()
            for wnid in WNIDS[:2]:
                for photo in (tmp_path / wnid).iterdir():
                    (flat / f"{wnid}_{photo.name}").symlink_to(photo)
            words = ["validate", str(flat), *plain, "--class-map", "map.txt"]
            part = said(capsys, words)
            assert (part["n"], sorted(part["per_class"])) == (6, ["ant", "bee"])
            assert part["per_class"] == {
                name: known["per_class"][name] for name in ("ant", "bee")
            }
            (tmp_path / "map.txt").write_text("ant\nbee\n")
            assert "names 2 classes, and" in said(capsys, words, 4)

    def test_networks_of_other_classes_are_no_ensemble(
        self, place: Path, tmp_path: Path, capsys: Capsys
    ) -> None:
        two = tmp_path / "two.safetensors"
        told = describe(NET, ("ant", "bee"), Preprocess())
        write_weights(two, network(2).state_dict(), told)
        words = ["--weights", str(place / "a.safetensors"), "--weights", str(two)]
        error = said(capsys, ["predict", str(place / "photos"), *words], 4)
        assert "do not know the same classes: 'cat'" in error


def test_a_saved_probe_scores_as_its_features_did(
    place: Path, tmp_path: Path, capsys: Capsys
) -> None:
    with working_in(tmp_path):
        words = ["--weights", str(place / "a.safetensors"), "--layer", "features"]
        assert run(["features", str(place / "photos"), *words, "--out", "F.h5"]) == 0
        assert run(["eval", "F.h5", "--protocol", "holdout", "--save", "p.safetensors"]) == 0
        capsys.readouterr()
        result = said(capsys, ["predict", str(place / "photos"), "--weights", "p.safetensors"])
        with FeatureStore.open("F.h5") as store:
            want = load_probe("p.safetensors").scores(store.matrix("features"))
    assert (result["measure"], result["n"]) == ("score", 9)
    for one, row in zip(result["predictions"], want, strict=True):
        scores = {entry["class"]: entry["score"] for entry in one["top"]}
        assert [scores[name] for name in CLASSES] == pytest.approx(row.tolist(), abs=1e-4)
