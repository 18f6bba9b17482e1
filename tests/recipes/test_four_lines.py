"""The four commands together: what each takes from the runs before it, and what it leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from alexkit.models.zoo import load_backbone
from alexkit.recipes.run_dir import read_record
from tests.conftest import Capsys
from tests.recipes.conftest import working_in


def test_each_run_is_recorded(four_lines: Path) -> None:
    folders = sorted((four_lines / "runs").iterdir())
    cache = folders.pop(0)  # what finetune's frozen part gave, for the next fit
    assert [p.suffix for p in cache.iterdir()] == [".h5"]
    runs = {p.name: read_record(p) for p in folders}
    assert list(runs) == ["eval-001", "features-001", "finetune-001", "train-001"]
    assert {record["state"] for record in runs.values()} == {"done"}
    trained = runs["train-001"]
    assert trained["result"]["split"] == "val"
    assert trained["result"]["n"] == 4
    assert 0 <= trained["result"]["top1"] <= 1
    assert trained["data"]["classes"] == ["cat", "dog"]
    assert len(trained["data"]["fingerprint"]) == 64
    assert trained["derived"]["network"] == {"value": "alexnet", "rule": "the default of train"}
    assert trained["versions"]["torch"]


def test_metrics_have_a_row_an_epoch(four_lines: Path) -> None:
    for name in ("train-001", "finetune-001"):
        text = (four_lines / "runs" / name / "metrics.csv").read_text()
        rows = list(csv.DictReader(text.splitlines()))
        assert [int(row["epoch"]) for row in rows] == [1, 2]
        assert all(np.isfinite(float(value)) for row in rows for value in row.values())
        assert (four_lines / "runs" / name / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_weights_say_what_they_are(four_lines: Path) -> None:
    for name, classes in (("train-001", ["cat", "dog"]), ("finetune-001", ["ant", "bee"])):
        for which in ("best", "last"):
            path = four_lines / "runs" / name / "weights" / f"{which}.safetensors"
            with safe_open(path, framework="np") as file:
                metadata = file.metadata()
                assert file.get_slice("fc8.weight").get_shape() == [2, 4096]
            assert metadata["model"] == "alexnet"
            assert json.loads(metadata["classes"]) == classes
            assert load_backbone(None, path, seed=0).classes == tuple(classes)


def test_features_took_data_and_weights_of_the_training_run(four_lines: Path) -> None:
    with FeatureStore.open(four_lines / "runs/features-001/features.h5") as store:
        assert store.complete
        assert set(store.layers) == {"fc7", "pool5"}
        assert store.classes == ("cat", "dog")
        assert len(store) == 12
        assert store.provenance["data"]["root"] == str(four_lines / "imagenet")
        assert store.provenance["model"] == "alexnet"
        assert store.provenance["weights"]["source"].endswith(
            "runs/train-001/weights/best.safetensors"
        )
        assert store.provenance["preprocessing"]["crop"] == 224
        assert store.matrix("fc7", split="val").shape == (4, 4096)


def test_a_list_is_taken_again_as_a_list(four_lines: Path, tmp_path: Path) -> None:
    lines = [
        f"{p.relative_to(four_lines)},{p.parent.name}" for p in four_lines.glob("mydata/*/*")
    ]
    (four_lines / "mine.csv").write_text("\n".join(sorted(lines)) + "\n")
    weights = str(four_lines / "runs/train-001")
    with working_in(tmp_path):
        words = ["finetune", str(four_lines / "mine.csv"), "--weights", weights]
        assert run([*words, "--epochs", "1"]) == 0
        assert run(["features", "--layer", "pool5"]) == 0
        with FeatureStore.open(Path("runs/features-001/features.h5")) as store:
            assert len(store) == 10
            assert store.classes == ("ant", "bee")


def test_finetune_began_at_the_trained_weights(four_lines: Path) -> None:
    def tensor(run: str, name: str) -> np.ndarray:
        path = four_lines / "runs" / run / "weights" / "best.safetensors"
        with safe_open(path, framework="np") as file:
            return np.asarray(file.get_tensor(name))

    for frozen in ("conv1.weight", "conv5.bias"):
        assert (tensor("finetune-001", frozen) == tensor("train-001", frozen)).all()
    assert (tensor("finetune-001", "fc7.weight") != tensor("train-001", "fc7.weight")).any()


def test_eval_judged_each_layer(four_lines: Path) -> None:
    told = json.loads((four_lines / "runs/eval-001/eval.json").read_text())
    assert told["protocol"]["name"] == "holdout"
    assert [r["layer"] for r in told["results"]] == ["fc7", "pool5"]
    for result in told["results"]:
        assert result["n_train"] == 8
        assert result["n_test"] == 4
        assert result["accuracy"]["mean"] == pytest.approx(1.0)  # colours give classes away
        assert result["objective_gap"] < 1e-3


def test_the_choice_of_inputs_is_said_first(four_lines: Path, capsys: Capsys) -> None:
    with working_in(four_lines):
        assert run(["eval", "--out", "elsewhere"]) == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert first == "features: runs/features-001/features.h5 (the newest features run)"


@pytest.mark.parametrize(
    "words",
    [
        ["train", "imagenet/", "--out", "runs/train-001"],
        ["features", "--out", "runs/features-001/features.h5"],
        ["features", "--out", "runs/features-001"],
        ["eval", "--out", "runs/eval-001"],
        ["eval", "--out", "imagenet"],
    ],
)
def test_finished_outputs_are_never_overwritten(
    words: list[str], four_lines: Path, capsys: Capsys
) -> None:
    before = {p: p.stat().st_mtime_ns for p in four_lines.rglob("*") if p.is_file()}
    with working_in(four_lines):
        assert run(words) == 2
    assert "error: " in capsys.readouterr().err
    after = {p: p.stat().st_mtime_ns for p in four_lines.rglob("*") if p.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("runs/train-001", "train"),
        ("runs/features-001/features.h5", "fc7"),
        ("runs/train-001/weights/best.safetensors", "56,876,418"),
    ],
)
def test_info_tells_what_each_output_is(
    path: str, said: str, four_lines: Path, capsys: Capsys
) -> None:
    with working_in(four_lines):
        assert run(["info", path]) == 0
    assert said in capsys.readouterr().out
