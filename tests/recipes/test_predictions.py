"""predictions.csv: it agrees with the figures of its run, and keeps any name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alexkit.errors import DamagedFile
from alexkit.images.batches import Batch
from alexkit.images.folder import open_folder
from alexkit.recipes.predictions import (
    COLUMNS,
    PREDICTIONS,
    PROBE_COLUMNS,
    Predictions,
    read_predictions,
)
from alexkit.reports.tables import save_csv
from tests.conftest import photos_in

ODD = 'a "quoted", <script>alert(1)</script>\n😀 \udcff.jpg'


@pytest.mark.parametrize("command", ["train", "finetune"])
def test_a_fit_tells_of_each_held_out_image(command: str, four_lines: Path) -> None:
    folder = four_lines / "runs" / f"{command}-001"
    result = json.loads((folder / "run.json").read_text())["result"]
    lines = read_predictions(folder / PREDICTIONS)
    assert len(lines) == result["n"]
    right = [line["class"] == line["predicted"] for line in lines]
    assert np.mean(right) == pytest.approx(result["top1"])
    assert np.mean([int(line["top5"]) for line in lines]) == pytest.approx(result["top5"])
    for line, is_right in zip(lines, right, strict=True):
        assert line["path"].split("/")[-2] == line["class"]
        assert 0 < float(line["p_class"]) <= float(line["p_predicted"]) <= 1
        assert is_right == (line["p_class"] == line["p_predicted"])


def test_eval_tells_of_each_row_of_its_best_layer(four_lines: Path) -> None:
    folder = four_lines / "runs" / "eval-001"
    told = json.loads((folder / "eval.json").read_text())
    lines = read_predictions(folder / PREDICTIONS)
    best = max(told["results"], key=lambda r: r["mean_class_accuracy"]["mean"])
    assert told["predictions"] == {"file": best["file"], "layer": best["layer"]}
    table = np.array(best["confusion"])
    assert sum(int(line["tested"]) for line in lines) == table.sum()
    assert sum(int(line["right"]) for line in lines) == np.trace(table)
    for line in lines:
        assert (float(line["margin"]) > 0) == (line["class"] == line["predicted"])


def test_probabilities_are_those_of_the_logits(tmp_path: Path) -> None:
    source = open_folder(photos_in(tmp_path / "photos", {"a": 2, "b": 2}))
    found = Predictions(source, source.classes)
    y = torch.tensor([1, 0])
    batch = Batch(np.array([2, 0]), torch.empty(2, 1, 1, 3), y, (), (), np.arange(2), 2)
    found.add(batch, torch.tensor([[0.0, np.log(3.0)], [-1.0, -1.0 + np.log(4.0)]]))
    found.write(tmp_path / PREDICTIONS)
    assert [list(line.values()) for line in read_predictions(tmp_path / PREDICTIONS)] == [
        ["a/photo000.jpg", "a", "b", "0.2", "0.8", "1"],  # in the order of the data
        ["b/photo000.jpg", "b", "b", "0.75", "0.75", "1"],
    ]
    found.clear()
    found.add(batch, torch.zeros(2, 2))
    found.write(tmp_path / PREDICTIONS)
    assert {line["p_class"] for line in read_predictions(tmp_path / PREDICTIONS)} == {"0.5"}


def test_names_are_kept_to_the_byte(tmp_path: Path) -> None:
    save_csv(tmp_path / "p.csv", COLUMNS, [[ODD, ODD, "b", "0.1", "0.9", 1]])
    (line,) = read_predictions(tmp_path / "p.csv")
    assert line["path"] == line["class"] == ODD


def test_what_is_no_such_file_is_told(tmp_path: Path) -> None:
    assert read_predictions(tmp_path / "none.csv") == []
    path = tmp_path / "p.csv"
    save_csv(path, PROBE_COLUMNS, [["x", "a", "b", "-0.2", 0, 1]] * 3)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(DamagedFile):
        read_predictions(path)
    path.write_text("path,other\na,b\n")
    with pytest.raises(DamagedFile):
        read_predictions(path)
