"""``alexkit neighbours``: the nearest images of a file, found again from photos."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import Refused, ResultOf, working_in

MODEL = ["--model", "squeezenet1_1", "--weights", "random"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, one of them broken, and their features from the centre and from two views."""
    folder = tmp_path_factory.mktemp("neighbours")
    photos_in(folder / "photos", {"ant": 4, "bee": 4})
    (folder / "photos/bee/broken.jpg").write_bytes(b"no image")
    with working_in(folder):
        layers = ["--layer", "features", "--layer", "flatten", "--pool", "avg"]
        assert run(["features", "photos", *MODEL, *layers, "--out", "F.h5"]) == 0
        views = ["--layer", "flatten", "--views", "flip", "--out", "V.h5"]
        assert run(["features", "photos", *MODEL, *views]) == 0
    return folder


@pytest.mark.parametrize("file", ["F.h5", "V.h5"])
@pytest.mark.parametrize("metric", ["euclidean", "correlation"])
def test_a_photo_of_the_file_is_nearest_to_itself(
    place: Path, file: str, metric: str, result_of: ResultOf
) -> None:
    with working_in(place):
        words = ["neighbours", "photos/ant/photo001.jpg", file, "--metric", metric]
        told = result_of([*words, "--count", "99"])
        with FeatureStore.open(place / file) as store:
            x = store.matrix("flatten").reshape(8, -1, 1000).mean(axis=1).astype(float)
            paths = [store.paths[row] for row in store.rows()]
    assert told["layer"] == "flatten"
    (query,) = told["queries"]
    found = query["neighbours"]
    assert len(found) == 8  # the broken image has no features
    assert found[0] == {"path": "ant/photo001.jpg", "class": "ant", "distance": 0.0}
    if metric == "correlation":
        x = x - x.mean(axis=1, keepdims=True)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        expected = 1 - x @ x[1]
    else:
        expected = np.linalg.norm(x - x[1], axis=1)
    assert [near["path"] for near in found] == [paths[i] for i in np.argsort(expected)]
    distances = [near["distance"] for near in found]
    assert distances == pytest.approx(np.sort(expected), rel=1e-3, abs=1e-6)


def test_a_folder_is_many_photos_and_a_bad_one_is_told(
    place: Path, capsys: Capsys, result_of: ResultOf
) -> None:
    with working_in(place):
        told = result_of(["neighbours", "photos/bee", "F.h5", "--layer", "features"])
        assert run(["neighbours", "photos/bee", "F.h5", "--quiet"]) == 0
    table = capsys.readouterr().out
    assert told["bad"] == 1
    assert [len(q["neighbours"]) for q in told["queries"]] == [0, 6, 6, 6, 6]
    assert told["queries"][0]["error"]
    assert table.count("nearest in flatten") == 4
    assert "photos/bee/photo003.jpg" in table


def test_what_was_found_as_a_file(
    place: Path, tmp_path: Path, result_of: ResultOf, refused: Refused
) -> None:
    words = ["neighbours", "photos/bee", "F.h5", "--out"]
    with working_in(place):
        told = result_of([*words, str(tmp_path / "new" / "N.json")])
        result_of([*words, str(tmp_path / "N.csv")])
        refused([*words, str(tmp_path / "N.csv")], 2, "exists")
        refused([*words, str(tmp_path / "N.txt")], 2, "end it in .csv or .json")
    assert json.loads((tmp_path / "new" / "N.json").read_text()) == told
    with (tmp_path / "N.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = [(q["path"], near) for q in told["queries"] for near in q["neighbours"]]
    assert len(rows) == len(found) == 24
    for row, (path, near) in zip(rows, found, strict=True):
        assert (row["query"], row["path"], row["class"]) == (path, near["path"], near["class"])
        assert float(row["euclidean"]) == near["distance"]


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["neighbours"], 2, "no image was named"),
        (["neighbours", "photos/bee", "F.h5", "--layer", "fc7"], 2, "fc7"),
        (["neighbours", "photos/bee", "F.h5", "--count", "0"], 2, "too small"),
        (["neighbours", "nowhere.jpg", "F.h5"], 3, "none of the 1 images"),
        (["neighbours", "photos/bee/broken.jpg", "F.h5"], 3, "none of the 1 images"),
        (["neighbours", "photos/bee", "F.h5", "--weights", "nowhere.pth"], 2, "nowhere.pth"),
        (["neighbours", "photos/bee", "photos/bee/photo000.jpg"], 4, "photo000.jpg"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    place: Path, words: list[str], status: int, told: str, refused: Refused
) -> None:
    with working_in(place):
        refused(words, status, told)
