"""A saved probe scores what the probe scored; a damaged one is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alexkit.errors import DamagedFile, DataError, UsageError
from alexkit.probes.protocol import LayerResult, judge_layer, single_task
from alexkit.probes.protocols import protocol_of
from alexkit.probes.saved import load_probe, probe_of, save_probe
from tests.probes.conftest import MakeProblem

CLASSES = ("ants", "bees", "cats", "dogs")


def judged(x: np.ndarray, y: np.ndarray, norm: str, protocol: str, probe: str) -> LayerResult:
    record = replace(protocol_of(protocol), norm=norm, probe=probe)
    return judge_layer(x, single_task(y, CLASSES, record, splits=None, seed=0))


@pytest.mark.parametrize("norm", ["none", "l2", "power", "standardize", "pca:9"])
@pytest.mark.parametrize("d", [30, 150], ids=["more rows", "more columns"])
def test_scores_the_test_rows_alike(
    make_problem: MakeProblem, tmp_path: Path, norm: str, d: int
) -> None:
    x, y = make_problem(90, d, 3)
    x = x.astype(np.float32)
    layer = judged(x, y, norm, "holdout", "svm")
    model, fitted, told = probe_of(layer, x, 0.0)
    assert told == "the training rows of the only split"
    path = tmp_path / "probe.safetensors"
    save_probe(path, model, fitted, classes=CLASSES, layer="fc7", record={"model": "alexnet"})
    probe = load_probe(path)
    (split,) = layer.splits
    scores = probe.scores(x[split.division.test])
    assert scores.shape == (18, 4)
    assert (scores.argmax(axis=1) == y[split.division.test]).tolist() == split.right.tolist()  # type: ignore[union-attr]
    source = x if layer.turned is None else layer.turned
    np.testing.assert_allclose(
        scores[:, :3], split.model.scores(split.norm(source[split.division.test])), atol=1e-6
    )
    assert (scores[:, 3] == -np.inf).all()
    assert (probe.classes, probe.layer, probe.record["model"]) == (CLASSES, "fc7", "alexnet")


def test_of_several_splits_one_probe_of_all_rows(make_problem: MakeProblem) -> None:
    x, y = make_problem(60, 200, 3)
    layer = judged(x, y, "none", "kfold", "svm")
    model, _, told = probe_of(layer, x, 0.01)
    assert told == "the rows of all splits"
    assert model.weights.shape == (3, 200)
    assert model.c == 0.01
    assert (model.scores(x).argmax(axis=1) == y).all()


def test_neighbours_are_not_saved(make_problem: MakeProblem) -> None:
    x, y = make_problem(60, 200, 3)
    with pytest.raises(UsageError, match="no weights to save"):
        probe_of(judged(x, y, "none", "kfold", "knn"), x, 0.01)


def test_damage_is_named(make_problem: MakeProblem, tmp_path: Path) -> None:
    x, y = make_problem(60, 20, 3)
    path = tmp_path / "probe.safetensors"
    model, norm, _ = probe_of(judged(x, y, "none", "holdout", "svm"), x, 0.01)
    save_probe(path, model, norm, classes=CLASSES, layer="fc7", record={})
    whole = path.read_bytes()
    three = rb"\"bees\", \"cats\", \"dogs\""
    for damaged in (
        b"",
        whole[:-8],
        whole[:100],
        whole.replace(b"alexkit/probe", b"another/thing"),
        whole.replace(b'"bias"', b'"bios"'),
        whole.replace(three, three[:8] + b" " * (len(three) - 8)),  # labels without class
        whole.replace(b'\\"kind\\"', b'\\"kine\\"'),
        whole.replace(b'\\"none\\"', b'\\"nine\\"'),
        whole.replace(b'\\"none\\"', b'\\"pca\\" '),  # without axes
        whole.replace(b'\\"fc7\\"', b"1234567"),  # a layer that is a number
    ):
        assert damaged != whole
        path.write_bytes(damaged)
        with pytest.raises(DamagedFile, match="is no probe of alexkit, or damaged"):
            load_probe(path)
    with pytest.raises(DataError, match="is no file"):
        load_probe(tmp_path / "nowhere")
