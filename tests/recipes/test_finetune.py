"""Fine-tuning: the frozen part once, a head fitted at once or in epochs, honest divisions."""

from __future__ import annotations

import csv
import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from alexkit import finetune
from alexkit.choices import FitHead
from alexkit.errors import DataError, Interrupted, UsageError, WeightsMismatch
from alexkit.events import Chosen, Event, Note, Warned, silent
from alexkit.images.draws import Rows
from alexkit.images.opening import open_source
from alexkit.models.layered import initialise, with_room
from alexkit.models.specs import find_spec
from alexkit.models.zoo import load_any, load_backbone
from alexkit.probes.softmax import temperature
from alexkit.recipes.division import divide, folds_of, groups_of
from alexkit.recipes.solved_head import SHARES, Form, solve
from alexkit.recipes.using import ValidateOptions
from alexkit.recipes.validate import run as validate
from alexkit.reports.tables import fit_table
from tests.conftest import photos_in

NO_ROWS = np.empty(0, np.int64)


@pytest.fixture(scope="module")
def convs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of torchvision's AlexNet up to pool5, random but lively."""
    net = with_room(find_spec("alexnet-owt").empty(2))
    initialise(net, 0)
    state = {
        name: 3 * tensor if name.endswith("weight") else tensor
        for name, tensor in net.canonical_state_dict().items()
        if name.startswith("conv")
    }
    path = tmp_path_factory.mktemp("weights") / "convs.pth"
    torch.save(state, path)
    return path


@pytest.fixture(autouse=True)
def place(here: Path) -> Path:
    return here


class Heard(list[Event]):
    """A reporter that keeps what it is told."""

    def __call__(self, event: Event) -> None:
        self.append(event)

    def texts(self) -> str:
        told = [e.text for e in self if isinstance(e, Note | Warned)]
        told += [f"{e.name}: {e.value}: {e.rule}" for e in self if isinstance(e, Chosen)]
        return "\n".join(told)


def last(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "weights" / "last.safetensors")


def best(run: str) -> dict[str, torch.Tensor]:
    return load_file(Path(run) / "weights" / "best.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether the first has tensors, and all are in the second to the bit."""
    return len(a) > 0 and all(torch.equal(tensor, b[name]) for name, tensor in a.items())


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def solved(kind: FitHead, x: npt.NDArray[Any], labels: Rows, fold: Rows, **more: Any) -> Any:
    given = {"classes": int(labels.max()) + 1, "maps": 1, "importance": None, **more}
    return solve(kind, torch.from_numpy(x).float(), labels, fold, report=silent, **given)


def test_a_stored_and_a_repeated_frozen_part_reach_the_same_weights(
    place: Path, convs: Path
) -> None:
    photos_in(place / "photos", {"ant": 6, "bee": 6})
    (place / "photos" / "ant" / "photo001.jpg").write_bytes(b"no image")
    words = {"weights": convs, "freeze": "conv5", "augment": "none", "epochs": 3}
    once = finetune("photos", out="once", batch_size=4, **words)
    anew = finetune("photos", out="anew", batch_size=4, uncached=True, **words)
    a, b = last("once"), last("anew")
    assert a.keys() == b.keys()
    assert max(float((a[n] - b[n]).abs().max()) for n in a) <= 1e-5
    assert float(a["fc8.weight"].abs().max()) > 1e-3, "it has learnt"
    assert once["bad"] == anew["bad"] == 1
    assert once["chosen_on"] == "val"


def test_a_solved_head_is_a_whole_network_and_its_frozen_part_runs_once(
    place: Path, convs: Path
) -> None:
    photos_in(place / "photos", {"ant": 8, "bee": 8, "cat": 8})
    result = finetune("photos", weights=convs)
    assert result["top1"] == 1.0, "the classes differ in colour"
    backbone = load_backbone(None, Path(result["run"]) / "weights" / "best.safetensors", seed=0)
    assert backbone.classes == ("ant", "bee", "cat")
    after = best(result["run"])
    assert same(torch.load(convs, weights_only=True), after)
    assert list(Path("runs/cache").glob("*.h5"))
    rows = rows_of(Path(result["run"], "split.csv"))
    assert len(rows) == 24
    assert sum(row["split"] == "val" for row in rows) == result["n"] == 6
    assert len(rows_of(Path(result["run"], "predictions.csv"))) == 6
    heard = Heard()
    judged = validate(ValidateOptions(data=Path("photos"), weights=(result["run"],)), heard)
    assert (judged["split"], judged["n"], judged["top1"]) == ("val", 6, 1.0)
    assert "judged by: 6 images of val: those that runs/finetune-001 was not" in heard.texts()
    every = ValidateOptions(data=Path("photos"), weights=(result["run"],), split="all")
    assert validate(every, heard)["n"] == 24
    assert "was trained on images of this data" in heard.texts()
    other = finetune("photos", weights=convs, head="svm", seed=3, report=heard)
    assert "was run before" in heard.texts()
    assert other["top1"] == 1.0
    (cache,) = Path("runs/cache").glob("*.h5")
    cache.write_bytes(cache.read_bytes()[:-40_000])
    heard.clear()
    again = finetune("photos", weights=convs, report=heard, out="runs/again")
    assert "the frozen part is run again" in heard.texts()
    assert same(after, best("runs/again"))
    assert again["top1"] == 1.0


@pytest.mark.parametrize("kind", [FitHead.LOGISTIC, FitHead.SVM, FitHead.MEAN])
def test_a_solved_head_separates_and_its_probabilities_fit(kind: FitHead) -> None:
    fold, labels = np.arange(120) % 5, np.repeat(np.arange(3), 40)
    many = np.repeat(np.arange(3), 2000)
    above, gaps = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        centres = 1.4 * rng.normal(size=(3, 20))
        x = centres[labels] + 3 * rng.normal(size=(120, 20))
        head = solved(kind, x[:, None], labels, fold, classes=4)
        fresh = torch.from_numpy(centres[many] + 3 * rng.normal(size=(6000, 20))).float()
        logits = fresh @ head.weight.T + head.bias
        p = logits.softmax(dim=1)
        assert float(p[:, 3].max()) < 1e-6, "a class without a photo is never named"
        right = p.argmax(dim=1).numpy() == many
        assert head.score is not None
        assert abs(head.score - right.mean()) < 0.1, "the folds say how good it is"
        gaps.append(float(p.max(dim=1).values.mean()) - right.mean())
        ideal = temperature(logits[:, :3].double().numpy(), many)

        def loss(factor: float, logits: torch.Tensor = logits) -> float:
            told = torch.from_numpy(many)
            return float(torch.nn.functional.cross_entropy(factor * logits[:, :3], told))

        above.append(loss(1.0) - loss(ideal))
    assert max(above) < 0.02, "hardly above the best that any factor could do"
    assert abs(np.mean(gaps)) < 0.04, "as sure as it is right"


@pytest.mark.parametrize("rows", [5, 200], ids=["turned", "as they are"])
@pytest.mark.parametrize("share", SHARES)
def test_weights_for_maps_and_their_means_are_weights_for_maps(rows: int, share: float) -> None:
    x = torch.rand(rows, 10 * 6, generator=torch.Generator().manual_seed(0))
    x[2] = 0.0
    x[3] = x[4]
    form = Form.of(x, 10, share)
    assert (form.turned is not None) == (rows == 5)
    length = form.rows.square().sum(dim=1).mean()
    assert float(length) == pytest.approx(1.0, rel=1e-4)
    found = np.random.default_rng(0).normal(size=(3, rows)) @ form.rows.double().numpy()
    weights = form.weights(found)
    assert weights.shape == (3, 60)
    want = form.rows.double().numpy() @ found.T
    assert np.allclose(x.double().numpy() @ weights.T, want, atol=1e-3 * np.abs(want).max())
    if share == 1.0:
        assert np.allclose(weights.reshape(3, 10, 6), weights.reshape(3, 10, 6)[..., :1])


def test_what_is_in_a_photo_and_where_it_is_are_both_learnt() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    fold = np.arange(90) // 3 % 5
    noise = rng.normal(size=(90, 4, 9))
    what, where = noise.copy(), noise.copy()
    what[np.arange(90), labels] += 1.0
    where[np.arange(90), 0, labels] += 4.0
    for x in (what, where):
        head = solved(FitHead.MEAN, x.reshape(90, 1, 36), labels, fold, maps=4)
        made = [(one.kind, one.share) for one in head.members]
        kinds = (FitHead.LOGISTIC, FitHead.SVM)
        assert sorted(made) == sorted(itertools.product(kinds, SHARES))
        alone = [np.mean(one.scores.argmax(axis=1) == labels) for one in head.members]
        assert head.score > 0.9
        assert head.score >= np.median(alone), "those that learn nothing weigh nothing"


def test_of_many_rows_fewer_heads_are_fitted() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2100) % 3
    rows = rng.normal(size=(2100, 1, 12)) + 2 * np.eye(3)[labels][:, None].repeat(4, 2)
    for classes, kinds in ((3, [FitHead.LOGISTIC, FitHead.SVM]), (300, [FitHead.SVM])):
        fold = np.arange(2100) % 2
        head = solved(FitHead.MEAN, rows, labels, fold, classes=classes, maps=3)
        assert [(one.kind, one.share) for one in head.members] == [(k, 0.5) for k in kinds]
        assert head.score > 0.9
        assert head.weight.shape == (classes, 12)


def test_the_mean_of_heads_is_one_head() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(60) % 2
    rows = rng.normal(size=(60, 2, 12)) + labels[:, None, None]
    mean, logistic, svm = (
        solved(kind, rows, labels, labels, maps=3)  # one class a fold: nothing can be chosen
        for kind in (FitHead.MEAN, FitHead.LOGISTIC, FitHead.SVM)
    )
    assert mean.score is None
    assert torch.allclose(mean.weight, (logistic.weight + svm.weight) / 2, atol=1e-5)
    assert torch.allclose(mean.bias, (logistic.bias + svm.bias) / 2, atol=1e-5)


def test_copies_are_never_parted_and_a_photo_of_two_classes_never_judges(place: Path) -> None:
    root = photos_in(place / "photos", {"ant": 12, "bee": 12})
    for i in range(6):
        shutil.copy(root / "ant" / f"photo{i:03d}.jpg", root / "ant" / f"copy{i:03d}.jpg")
    shutil.copy(root / "bee" / "photo000.jpg", root / "ant" / "bee.jpg")
    source = open_source(root)
    groups = groups_of(source, 2, NO_ROWS, None)
    heard = Heard()
    for seed in range(5):
        rows = divide(source, groups, fraction=0.3, seed=seed, report=heard)
        assert not set(groups[rows.train]) & set(groups[rows.judged])
        assert len(rows.train) + len(rows.judged) == len(source)
        judged = {source.record(int(row)).path for row in rows.judged}
        assert not judged & {"ant/bee.jpg", "bee/photo000.jpg"}
    assert "ant/bee.jpg = bee/photo000.jpg" in heard.texts()
    labels = np.asarray(source.labels)
    fold = folds_of(labels, groups, 3, 0)
    assert all(len(set(fold[groups == g])) == 1 for g in np.unique(groups))
    assert np.bincount(fold).max() - np.bincount(fold).min() <= 3


def test_near_copies_are_found_by_their_features(place: Path) -> None:
    root = photos_in(place / "photos", {"ant": 2, "bee": 2})
    features = np.eye(4)
    features[3] = features[2] + 1e-3
    groups = groups_of(open_source(root), 1, np.arange(4), features)
    assert groups[2] == groups[3]
    assert len(set(groups)) == 3
    alike = np.ones((4, 4)) + 1e-4 * np.eye(4)
    groups = groups_of(open_source(root), 1, np.arange(4), alike)
    assert len(set(groups)) == 4, "a network that tells no photos apart says nothing of copies"


def test_folds_judge_every_photo_once(place: Path, convs: Path) -> None:
    photos_in(place / "photos", {"ant": 6, "bee": 7})
    result = finetune("photos", weights=convs, folds=3, out="run")
    assert result["n"] == 13
    assert len(result["folds"]) == 3
    ((_, _, judged, _, top1, *_),) = fit_table(result)[1]
    assert judged == "3 folds"
    assert top1 == f"{100 * result['top1']:.1f} ± {100 * result['std']:.1f} %"
    assert len({row["path"] for row in rows_of(Path("run/predictions.csv"))}) == 13
    assert best("run")["fc8.weight"].shape == (2, 9216)
    with pytest.raises(DataError, match="fewer than 7 folds"):
        finetune("photos", weights=convs, folds=7)


def test_rare_classes_weigh_more_and_few_photos_are_told(place: Path, convs: Path) -> None:
    photos_in(place / "photos", {"ant": 20, "bee": 4, "cat": 1})
    heard = Heard()
    result = finetune("photos", weights=convs, report=heard)
    told = heard.texts()
    assert "weights of classes: by their rarity" in told
    assert "'cat'" in told
    assert "--folds" not in told, "one photo cannot be in folds"
    assert result["classes"] == 3


@pytest.mark.parametrize("counts", [{"ant": 3, "bee": 3}, {"ant": 2, "bee": 2, "cat": 2}])
def test_very_few_photos(place: Path, convs: Path, counts: dict[str, int]) -> None:
    photos_in(place / "photos", counts)
    heard = Heard()
    result = finetune("photos", weights=convs, report=heard)
    assert result["n"] == len(counts)
    assert f"--folds {min(counts.values())} gives" in heard.texts()


def test_odd_photos_among_them(place: Path, convs: Path) -> None:
    root = photos_in(place / "photos", {"ant": 5, "bee": 5})
    Image.new("RGB", (1, 1), "red").save(root / "ant" / "dot.png")
    Image.new("RGB", (12_000, 9_000), "red").save(root / "ant" / "huge.jpg")
    (root / "bee" / "page.gif").write_bytes(b"<html>not found</html>")
    data = (root / "ant" / "photo000.jpg").read_bytes()
    (root / "ant" / "photo000.jpg").write_bytes(data[: len(data) // 2])
    result = finetune("photos", weights=convs, out="run")
    assert result["classes"] == 2
    ledger = Path("run/bad_images.csv").read_text()
    assert "bee/page.gif" in ledger
    assert "huge.jpg" not in ledger
    assert result["bad"] + result["repaired"] == 2, "the page, and the half of a photo"


def test_a_class_that_is_only_judged(place: Path, convs: Path) -> None:
    photos_in(place / "photos", {"train/ant": 3, "train/bee": 3, "val/ant": 1, "val/cat": 1})
    with pytest.raises(DataError, match="'cat' has images in val and none in train"):
        finetune("photos", weights=convs, out="run")
    assert not Path("run").exists()
    assert not Path("cache").exists(), "it is told before anything is computed"


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ({"head": "svm", "freeze": "conv5"}, "--freeze fc8"),
        ({"head": "svm", "epochs": 3}, "go together|epochs"),
        ({"freeze": "fc8", "lr": 0.1}, "--head fc"),
        ({"augment": "random", "freeze": "conv5"}, "--uncached"),
        ({"augment": "views", "freeze": "none"}, "--augment random"),
        ({"augment": "corners", "freeze": "none"}, "--augment random"),
        ({"uncached": True}, "--uncached"),
        ({"freeze": "none", "lr": "fast"}, "find"),
        ({"freeze": "fc6"}, "conv5"),
    ],
)
def test_words_that_do_not_go_together(
    place: Path, convs: Path, words: dict[str, object], hint: str
) -> None:
    photos_in(place / "photos", {"ant": 3, "bee": 3})
    with pytest.raises(UsageError) as caught:
        finetune("photos", weights=convs, **words)
    assert any(part in caught.value.message + caught.value.hint for part in hint.split("|"))
    assert not list(Path("runs").glob("finetune-*"))


def test_a_stopped_fit_on_stored_values_goes_on_to_the_same_weights(
    place: Path, convs: Path
) -> None:
    photos_in(place / "photos", {"ant": 6, "bee": 6})
    words = {"weights": convs, "freeze": "conv5", "epochs": 3, "batch_size": 4}
    finetune("photos", out="whole", **words)
    with pytest.raises(Interrupted):
        finetune("photos", out="parts", max_time=0.0, **words)
    finetune("photos", out="parts", **words)
    assert same(last("whole"), last("parts"))


def test_a_network_of_torchvision_whole_and_its_head_alone(place: Path) -> None:
    photos_in(place / "photos", {"ant": 5, "bee": 5})
    words = {"model": "resnet18", "weights": "random"}
    head = finetune("photos", out="head", **words)
    assert head["model"] == "resnet18"
    backbone = load_any(None, Path("head/weights/best.safetensors"), seed=0)
    assert backbone.classes == ("ant", "bee")
    start = best("head")
    body = {key: t for key, t in start.items() if not key.startswith("fc.")}
    torch.save(body, place / "body.pth")
    heard = Heard()
    finetune("photos", out="body", model="resnet18", weights="body.pth", report=heard)
    assert "the weights have no classifier: fc.weight, fc.bias" in heard.texts()
    assert torch.equal(best("body")["fc.weight"], start["fc.weight"])
    del body["conv1.weight"]
    torch.save(body, place / "less.pth")
    with pytest.raises(WeightsMismatch, match=r"missing conv1\.weight"):
        finetune("photos", model="resnet18", weights="less.pth")
    finetune(
        "photos", out="whole", freeze="none", epochs=1, lr=0.01, mixup=0.2, smoothing=0.1,
        model="resnet18", weights="head", schedule="plateau", patience=2,
    )  # fmt: skip
    after = best("whole")
    assert not torch.equal(start["conv1.weight"], after["conv1.weight"])
    assert after["fc.weight"].shape == (2, 512)


def test_a_rate_is_found_and_the_trial_forgotten(place: Path, convs: Path) -> None:
    photos_in(place / "photos", {"ant": 5, "bee": 5})
    heard = Heard()
    words = {"weights": convs, "freeze": "conv5", "epochs": 1}
    finetune("photos", out="found", lr="find", augment="corners", report=heard, **words)
    rate = next(e.value for e in heard if isinstance(e, Chosen) and e.name == "learning rate")
    assert f"learning rate {float(rate):g}: in 60 trial steps" in heard.texts()
    assert "corners, centre, mirrored" in heard.texts()
    finetune("photos", out="given", lr=float(rate), augment="corners", **words)
    assert same(last("found"), last("given"))


def test_several_processes_are_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="launcher started 2"):
        finetune("photos", weights="random", model="alexnet-owt")
    assert not list(place.iterdir())
