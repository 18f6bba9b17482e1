"""``alexkit eval`` on feature files made here: what it says, writes and refuses."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.svm import LinearSVC

from alexkit.choices import Protocol
from alexkit.cli.app import run
from alexkit.errors import OutputExists
from alexkit.events import Event, Note, Saved, silent
from alexkit.features.store import FeatureStore
from alexkit.probes.saved import load_probe
from alexkit.recipes import eval_rows, evaluate
from alexkit.recipes.options import EvalOptions
from tests.conftest import Capsys, feature_file
from tests.recipes.conftest import Refused
from tests.recipes.struck import struck

Make = Callable[..., Path]
CLASSES = ("ants", "bees", "cats")


@pytest.fixture
def make(here: Path) -> Make:
    """Writes a feature file of 90 rows, 30 of each class, with layers fc6 and fc7."""

    def make(
        name: str = "F.h5",
        *,
        y: Any = None,
        splits: Any = None,
        paths: Any = None,
        bad: dict[int, str] | None = None,
        values: Any = None,
        views: bool = False,
        seed: int = 0,
        centres: int = 4,
        provenance: dict[str, Any] | None = None,
    ) -> Path:
        rng = np.random.default_rng(seed)
        y = np.arange(90) % 3 if y is None else np.array(y)
        n = y.size
        x = np.maximum(
            rng.normal(-0.5, 1, (n, 120)) + rng.normal(0, 0.35, (centres, 120))[y], 0
        )
        layers = {"fc6": x, "fc7": x[:, :80] ** 1.5} if values is None else values(x)
        if views:
            layers = {k: np.stack([v - 1, v + 3], axis=1) for k, v in layers.items()}
        told = {"model": "alexnet", "weights": {"sha256": "a1b2"}}
        told |= ({"stored_views": 2} if views else {}) | (provenance or {})
        named = {"paths": paths, "labels": y, "splits": splits, "classes": CLASSES}
        feature_file(here / name, layers, **named, bad=bad, provenance=told)
        return Path(name)

    return make


def scores(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "eval.json").read_text())
    return found


def judged(*words: str, file: str = "F.h5", out: str = "E") -> list[dict[str, Any]]:
    """The results of a command line that ends well, in its eval.json."""
    assert run(["eval", file, *words, "--out", out]) == 0
    found: list[dict[str, Any]] = scores(out)["results"]
    return found


def timeless(out: str) -> str:
    lines = Path(out, "eval.json").read_text().splitlines()
    return "\n".join(line for line in lines if '"seconds":' not in line)


def interrupted(options: EvalOptions, when: Callable[[Event], bool]) -> None:
    """Judges until Ctrl-C comes, with the first event of which ``when`` is true."""

    def report(event: Event) -> None:
        if when(event):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate.run(options, report)


def fc7_begins(event: Event) -> bool:
    return isinstance(event, Note) and event.text.endswith("fc7")


class TestResults:
    def test_the_layer_curve_and_which_layer_is_better(
        self, make: Make, capsys: Capsys
    ) -> None:
        make()
        results = judged("--shots", "10", "--repeats", "3")
        told = capsys.readouterr()
        assert "fc6" in told.out
        assert "(McNemar, exact)" in told.out
        assert "no test row equals a training row" in told.err
        found = scores("E")
        assert [(r["layer"], r["splits"]) for r in results] == [("fc6", 3), ("fc7", 3)]
        assert found["protocol"]["shots"] == [10]
        (pair,) = found["comparisons"]
        assert pair["rows"] == 86  # those that one of three draws tests
        assert 0 <= pair["p"] <= 1

    def test_the_learning_curve(self, make: Make, capsys: Capsys) -> None:
        make()
        results = judged("--layer", "fc7", "--curve", "5,1,20")
        assert [r["shots"] for r in results] == [1, 5, 20]
        assert [r["n_train"] for r in results] == [3, 15, 60]
        assert [r["n_test"] for r in results] == [30, 30, 30]
        means = [r["accuracy"]["mean"] for r in results]
        assert means == sorted(means)
        assert "shots" in capsys.readouterr().out

    @pytest.mark.parametrize("words", [[], ["--curve", "2,8"], ["--protocol", "clip"]])
    def test_the_same_seed_gives_the_same_bytes_but_for_times(
        self, make: Make, words: list[str]
    ) -> None:
        make()
        for out in ("A", "B"):
            judged(*words, "--seed", "4", out=out)
        assert timeless("A") == timeless("B")

    def test_after_a_signal_the_same_command_goes_on(self, make: Make, capsys: Capsys) -> None:
        make()
        words = ["eval", "F.h5", "--shots", "10", "--repeats", "5", "--out"]
        child = struck([*words, "A"], "F.h5: fc7", signal.SIGINT)
        assert child.returncode == 130
        assert child.stderr.endswith("error: interrupted\nhint: the same command continues\n")
        assert not Path("A", "eval.json").exists()
        assert run([*words, "A"]) == 0
        assert "fc6 was judged before the interruption" in capsys.readouterr().err
        assert run([*words, "B"]) == 0
        assert timeless("A") == timeless("B")
        predicted = [Path(out, "predictions.csv").read_bytes() for out in ("A", "B")]
        assert predicted[0] == predicted[1]
        assert [path.name for path in Path("A", "state").iterdir()] == ["lock"]

    def test_features_that_were_made_anew_are_judged_anew(
        self, make: Make, capsys: Capsys
    ) -> None:
        options = EvalOptions(
            files=(make(),), protocol=Protocol.FEW_SHOT, shots=10, repeats=3, out=Path("A")
        )
        interrupted(options, fc7_begins)
        assert list(Path("A/state").glob("*.npz"))
        Path("F.h5").unlink()
        make(seed=1)
        words = ["--protocol", "few-shot", "--shots", "10", "--repeats", "3", "--out", "A"]
        assert run(["eval", "F.h5", *words]) == 0
        told = capsys.readouterr().err
        assert "continuing A" in told
        assert "judged before" not in told

    def test_rows_with_a_bad_image_are_left_out_and_counted(
        self, make: Make, capsys: Capsys
    ) -> None:
        make(bad={4: "broken", 50: "broken"})
        (result,) = judged("--layer", "fc7")
        assert "2 rows without features are left out" in capsys.readouterr().err
        assert np.sum(result["confusion"]) == 88
        assert run(["eval", "F.h5", "--strict"]) == 3
        assert "'img004.jpg': broken" in capsys.readouterr().err

    def test_others_figures_stand_beside_data_of_as_many_classes(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
    ) -> None:
        monkeypatch.setitem(globals(), "CLASSES", tuple(f"class {k}" for k in range(67)))
        make(
            y=np.arange(268) % 67,
            values=lambda _: {"fc6": np.eye(67)[np.arange(268) % 67]},
            centres=67,
        )
        for words, shown in (([], True), (["--norm", "none"], False)):
            assert run(["eval", "F.h5", "--protocol", "razavian", *words]) == 0
            assert ("58.4 %" in capsys.readouterr().out) is shown
        assert run(["eval", "F.h5", "--protocol", "kornblith", "--out", "K"]) == 0
        assert scores("K")["protocol"]["published"] == []

    def test_rows_without_a_label_are_left_out_and_said(
        self, make: Make, capsys: Capsys
    ) -> None:
        make(y=[*(np.arange(90) % 3), -1, -1])
        (result,) = judged("--layer", "fc7")
        assert "2 rows without a label are left out" in capsys.readouterr().err
        assert np.sum(result["confusion"]) == 90

    def test_c_is_chosen_from_those_that_were_asked(self, make: Make) -> None:
        make()
        (several,) = judged("--layer", "fc7", "--C", "1e-2,1e-4,0.01")
        assert [entry["C"] for entry in several["cv"]] == [1e-4, 1e-2]
        assert scores("E")["protocol"]["C"] == [1e-4, 1e-2]
        (one,) = judged("--layer", "fc7", "--C", "0.03", "--protocol", "clip", out="F")
        assert (one["C"], one["cv"]) == (0.03, [])
        assert scores("F")["protocol"]["C_chosen_by"] == "fixed"

    def test_rows_of_val_beside_rows_of_test_choose_c(self, make: Make) -> None:
        splits = np.where(np.arange(90) < 45, 1, np.where(np.arange(90) < 63, 2, 3))
        make(splits=splits)
        (result,) = judged("--layer", "fc7")
        assert (result["n_train"], result["n_test"]) == (63, 27)
        assert "the val rows" in scores("E")["protocol"]["C_chosen_by"]
        with FeatureStore.open("F.h5") as store:
            x, y = store.matrix("fc7"), store.labels
        for entry in result["cv"]:
            one = LinearSVC(C=entry["C"], tol=1e-7, max_iter=10**6, random_state=0)
            predicted = one.fit(x[:45], y[:45]).predict(x[45:63])
            assert entry["score"] == pytest.approx(balanced_accuracy_score(y[45:63], predicted))

    def test_views_are_averaged(self, make: Make, capsys: Capsys) -> None:
        make()
        make("V.h5", views=True)
        words = ["--layer", "fc7", "--norm", "pca:9"]
        (plain,), (mean,) = judged(*words), judged(*words, file="V.h5", out="W")
        assert "fc7 is the mean over the views of an image" in capsys.readouterr().err
        assert plain["confusion"] == mean["confusion"]  # views differ by a constant

    def test_rows_that_stay_in_the_file_score_alike(
        self, make: Make, monkeypatch: pytest.MonkeyPatch, capsys: Capsys
    ) -> None:
        make(values=lambda x: {"wide": x, "narrow": x[:, :20]})
        in_memory = judged()
        capsys.readouterr()
        monkeypatch.setattr(evaluate, "free_memory", lambda: 1000)
        of_file = judged(out="S")
        assert "read from the file in blocks" in capsys.readouterr().err
        for held, read in zip(in_memory, of_file, strict=True):
            assert held["confusion"] == read["confusion"]
        assert run(["eval", "F.h5", "--norm", "standardize"]) == 5
        assert "which read the file in blocks" in capsys.readouterr().err

    def test_free_memory_is_known_here(self) -> None:
        assert 2**20 < eval_rows.free_memory() < 2**50


class TestTwoFiles:
    def test_are_matched_by_path(self, make: Make, capsys: Capsys) -> None:
        make()
        order = np.random.default_rng(3).permutation(90)
        make(
            "G.h5",
            y=(np.arange(90) % 3)[order],
            paths=[f"img{row:03d}.jpg" for row in order],
            values=lambda x: {"fc7": np.eye(4)[(np.arange(90) % 3)[order]] + 0 * x[:, :4]},
        )
        weak, perfect = judged("G.h5", "--layer", "fc7")
        assert "G.h5 fc7 against " in capsys.readouterr().out
        assert perfect["accuracy"]["mean"] == 1.0
        (pair,) = scores("E")["comparisons"]
        missed = round(90 * (1 - weak["accuracy"]["mean"]))
        assert (pair["first_only"], pair["second_only"]) == (missed, 0)

    def test_of_other_images_or_labels(self, make: Make, capsys: Capsys) -> None:
        make()
        names = [f"img{row:03d}.jpg" for row in range(90)]
        make("G.h5", paths=[*names[:7], "other.jpg", *names[8:]])
        make("H.h5", y=(np.arange(90) + (np.arange(90) == 5)) % 3)
        assert run(["eval", "F.h5", "G.h5"]) == 4
        assert "'img007.jpg' is in F.h5 but not in G.h5" in capsys.readouterr().err
        assert run(["eval", "F.h5", "H.h5"]) == 4
        assert "'img005.jpg' has the class 'cats' in F.h5 and 'ants'" in capsys.readouterr().err


class TestFiles:
    def test_a_probe_is_kept_with_what_made_it(self, make: Make) -> None:
        make()
        words = ["eval", "F.h5", "--layer", "fc7", "--norm", "l2"]
        assert run([*words, "--protocol", "holdout", "--save", "P", "--out", "E"]) == 0
        probe = load_probe("P")
        assert (probe.layer, probe.classes) == ("fc7", CLASSES)
        assert probe.record["model"] == "alexnet"
        assert probe.record["weights"] == {"sha256": "a1b2"}
        with FeatureStore.open("F.h5") as store:
            right = probe.scores(store.matrix("fc7")).argmax(axis=1) == store.labels
        assert right.sum() >= 72  # all rows it was fitted to
        assert run([*words, "--save", "P"]) == 2

    @pytest.mark.parametrize("place", [None, Path("E")])
    def test_a_run_that_ended_after_writing_its_files_goes_on(
        self, make: Make, place: Path | None
    ) -> None:
        options = EvalOptions(
            files=(make(),), layer=("fc7",), save=Path("P"), save_splits=Path("S"), out=place
        )
        interrupted(options, lambda event: isinstance(event, Saved) and event.what == "scores")
        probe = Path("P").read_bytes()
        with pytest.raises(OutputExists):
            evaluate.run(replace(options, layer=("fc6",), out=Path("O")), silent)
        assert Path("P").read_bytes() == probe
        evaluate.run(options, silent)
        assert Path("P").read_bytes() == probe
        with pytest.raises(OutputExists):
            evaluate.run(options, silent)

    def test_a_file_that_an_unfinished_run_has_not_written_stays(self, make: Make) -> None:
        options = EvalOptions(files=(make(),), layer=("fc7",), save=Path("P"))
        interrupted(options, fc7_begins)
        Path("P").write_bytes(b"of another")
        with pytest.raises(OutputExists):
            evaluate.run(options, silent)
        assert Path("P").read_bytes() == b"of another"

    @pytest.mark.parametrize("option", ["--save", "--save-splits"])
    def test_a_file_that_cannot_be_written_names_its_option(
        self, make: Make, option: str, refused: Refused
    ) -> None:
        make()
        Path("P.partial").mkdir()  # where it is until it is whole
        words = ["eval", "F.h5", "--layer", "fc7", option, "P"]
        refused(words, 5, f"choose another {option}; the same command")

    def test_splits_survive_another_order_of_rows(self, make: Make) -> None:
        make()
        words = ["--layer", "fc7", "--norm", "l2"]
        (first,) = judged(*words, "--save-splits", "S.json", out="A")
        order = np.random.default_rng(3).permutation(90)
        with FeatureStore.open("F.h5") as store:
            x = store.matrix("fc7")[order]
        make(
            "G.h5",
            y=(np.arange(90) % 3)[order],
            paths=[f"img{row:03d}.jpg" for row in order],
            values=lambda _: {"fc7": x},
        )
        words += ["--splits", "S.json"]
        (again,), (other,) = judged(*words, out="B"), judged(*words, file="G.h5", out="C")
        assert first["accuracy"] == again["accuracy"]
        assert first["per_class"] == again["per_class"]
        assert other["n_test"] == first["n_test"]

    def test_split_files_that_do_not_fit(self, make: Make, capsys: Capsys) -> None:
        make()
        parts: dict[str, list[str]] = {"train": [], "test": [], "val": []}
        right = {"format": "alexkit/splits", "format_version": 1, "splits": [parts]}
        known = [{"train": ["img000.jpg"], "test": ["img001.jpg"], "val": []}]
        unknown = [{"train": ["x.jpg"], "test": ["img001.jpg"], "val": []}]
        for told, status, said in (
            ("{}", 4, "is no split file"),
            (json.dumps(right), 4, "without train or test rows"),
            (json.dumps(right | {"splits": unknown}), 4, "divides 'x.jpg'"),
            (json.dumps(right | {"splits": known, "format_version": 2}), 4, "another format"),
        ):
            Path("S.json").write_text(told)
            assert run(["eval", "F.h5", "--splits", "S.json"]) == status
            assert said in capsys.readouterr().err
        assert run(["eval", "F.h5", "--splits", "nowhere.json"]) == 3

    @pytest.mark.parametrize(
        ("train", "test", "status", "said"),
        [
            ([0, 1, 1], [5], 4, "a row twice in one part"),
            ([0, 1, 3], [4, 4], 4, "a row twice in one part"),
            ([0, 3, 6], [9], 3, "all training rows are of one class, 'ants'"),
            ([0, 1, 3], [5], 3, "class 'cats' is to be tested but has no training rows"),
        ],
    )
    def test_splits_that_cannot_be_judged(
        self,
        make: Make,
        train: list[int],
        test: list[int],
        status: int,
        said: str,
        refused: Refused,
    ) -> None:
        make()
        named = {"train": train, "test": test, "val": []}
        split = {part: [f"img{row:03d}.jpg" for row in rows] for part, rows in named.items()}
        told = {"format": "alexkit/splits", "format_version": 1, "splits": [split]}
        Path("S.json").write_text(json.dumps(told))
        refused(["eval", "F.h5", "--splits", "S.json"], status, said)


class TestSeveralClasses:
    def labels(self) -> str:
        """Every row its class; row 7 has two, row 4 is difficult as a bee."""
        lines = ["path,ants,bees,cats,split"]
        for row in range(90):
            cells = [1 if row % 3 == k else -1 for k in range(3)]
            cells[1] = {7: 1, 4: 0}.get(row, cells[1])
            cells[0] = 1 if row == 7 else cells[0]
            split = "test" if row >= 60 else "train"
            lines.append(f"img{row:03d}.jpg,{cells[0]},{cells[1]},{cells[2]},{split}")
        return "\n".join(lines) + "\n"

    @pytest.mark.parametrize("protocol", ["voc07", "goyal", "razavian"])
    def test_has_both_precisions(self, make: Make, protocol: str, capsys: Capsys) -> None:
        make()
        Path("L.csv").write_text(self.labels())
        (found,) = judged("--layer", "fc7", "--labels", "L.csv", "--protocol", protocol)
        assert "mAP, 11 points" in capsys.readouterr().out
        assert found["accuracy"] is None
        assert found["map"]["area"]["mean"] > 0.8
        each = list(found["per_class"].values())
        assert found["map"]["area"]["mean"] == pytest.approx(np.mean(each))
        assert (found["n_train"], found["n_test"]) == (60, 30)

    @pytest.mark.parametrize(
        ("shape", "pool"), [((20, 2, 2), "grid:2"), ((1, 9, 9), "9k"), ((80,), "flat")]
    )
    def test_maps_that_are_pooled_already_are_not_pooled_again(
        self, make: Make, shape: tuple[int, ...], pool: str, capsys: Capsys
    ) -> None:
        size = int(np.prod(shape))
        provenance = {"model": "alexnet", "pool": pool}
        make(values=lambda x: {"conv3": x[:, :size].reshape(-1, *shape)}, provenance=provenance)
        words = ["eval", "F.h5", "--protocol", "goyal", "--out", "E", "--save", "P"]
        assert run(words) == 0
        rows = " × ".join(map(str, shape))
        told = f"conv3 is not average-pooled by the protocol: its rows are {rows}"
        assert f"{told}, extracted with --pool {pool}" in capsys.readouterr().err
        saved = load_probe("P")
        assert saved.record["pooled"] is False
        assert saved.model.weights.shape[1] == size

    def test_difficult_rows_are_not_counted(self, make: Make) -> None:
        """A wrong label in training and in test that is called difficult changes nothing."""
        words = ["--layer", "fc7", "--protocol", "voc07", "--labels", "L.csv"]
        make()
        text = self.labels()
        found = []
        for out, cell in (("A", "-1"), ("B", "0"), ("C", "1")):
            told = text.replace("img001.jpg,-1,1,-1", f"img001.jpg,{cell},1,-1")
            Path("L.csv").write_text(
                told.replace("img061.jpg,-1,1,-1", f"img061.jpg,{cell},1,-1")
            )
            found.append(judged(*words, out=out)[0]["per_class"])
        assert found[0]["bees"] == found[1]["bees"] == found[2]["bees"]
        assert found[2]["ants"] < found[1]["ants"]

    def test_labels_that_cannot_be_used(self, make: Make, capsys: Capsys) -> None:
        make()
        whole = self.labels()
        for text, said in (
            (whole.replace("path,", "file,"), "has no labels"),
            (whole.replace("img003.jpg,1", "img003.jpg,yes"), "line 5 of L.csv: 'yes' is no"),
            (whole.replace("img003", "img999"), "no row with features is 'img999.jpg'"),
            (whole.replace("img003", "img004"), "names a row twice"),
            (whole.replace("train", "learn"), "no split 'learn'"),
            (whole + "img001.jpg,1\n", "has not 5 cells"),
            (whole.replace(",train", ",test"), "no labelled row is of a train split"),
        ):
            Path("L.csv").write_text(text)
            assert run(["eval", "F.h5", "--labels", "L.csv"]) == 3, said
            assert said in capsys.readouterr().err


ODD: list[tuple[dict[str, Any], list[str], int, str]] = [
    ({"y": [-1] * 9}, [], 3, "no row has both features and a label"),
    ({"y": [1] * 9}, [], 3, "all 9 rows are of one class, 'bees'"),
    ({"y": [1]}, [], 3, "the only row is of one class, 'bees'"),
    ({"y": [0] * 9 + [1] * 4}, ["--shots", "4"], 3, "class 'bees' has 4 rows to train on"),
    ({"y": [0, 0, 0, 1, 1, 1, 2], "splits": [1] * 6 + [3]}, [], 3, "'cats' is to be tested"),
    ({"values": lambda x: {"fc7": 0 * x}}, [], 3, "all training rows are zero"),
    ({}, ["--protocol", "kfold", "--shots", "3"], 2, "--protocol kfold has no shots"),
    ({}, ["--protocol", "voc07"], 2, "--protocol voc07 needs --labels"),
    ({}, ["--protocol", "goyal", "--probe", "ridge"], 2, "--protocol goyal is of --probe svm"),
    ({}, ["--norm", "L2"], 2, "there is no norm 'L2'"),
    ({}, ["--norm", "pca:x"], 2, "--norm pca:x has no positive number"),
    ({}, ["--C", "1,0"], 2, "--C 1,0 is no list of positive numbers"),
    ({}, ["--C", "nan"], 2, "--C nan is no list of positive numbers"),
    ({}, ["--C", "1", "--probe", "knn"], 2, "a knn probe has no C"),
    ({}, ["--curve", "1;2"], 2, "--curve 1;2 is no list of numbers"),
    ({}, ["--curve", "1,2", "--shots", "3"], 2, "exclude each other"),
    ({}, ["--save", "P"], 2, "--save takes one layer of one file"),
    ({}, ["--layer", "fc7", "--probe", "knn", "--save", "P"], 2, "a knn probe has no weights"),
    ({}, ["--layer", "fc7", "--save", "no/where"], 3, "there is no folder no"),
    ({}, ["--labels", "nowhere.csv"], 3, "cannot read nowhere.csv"),
]


@pytest.mark.parametrize(("content", "words", "status", "said"), ODD, ids=[o[3] for o in ODD])
def test_one_line_each(
    content: dict[str, Any],
    words: list[str],
    status: int,
    said: str,
    make: Make,
    refused: Refused,
) -> None:
    make(**content)
    refused(["eval", "F.h5", *words], status, said)
