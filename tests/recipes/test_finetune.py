"""Fine-tuning: the frozen part once, a head fitted at once or in epochs, honest divisions."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from alexkit import finetune
from alexkit.choices import Augment, FitHead
from alexkit.errors import DataError, Interrupted, UsageError, WeightsMismatch
from alexkit.events import Chosen, Event, Note, Warned, silent
from alexkit.images.draws import Rows
from alexkit.images.opening import open_source
from alexkit.models.heads import replace_head
from alexkit.models.layered import initialise, with_room
from alexkit.models.rbf_head import RBFHead, described
from alexkit.models.specs import find_spec
from alexkit.models.zoo import load_any, load_backbone
from alexkit.probes.softmax import temperature
from alexkit.recipes import solved_head, unfreezing
from alexkit.recipes.division import divide, folds_of, groups_of
from alexkit.recipes.export import run as export
from alexkit.recipes.finetune_words import settle_how
from alexkit.recipes.options import FinetuneOptions
from alexkit.recipes.solved_head import SHARE, UNITS, Form, Kernel, Solved, solve
from alexkit.recipes.using import ExportOptions, ValidateOptions
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
    other = finetune(
        "photos", weights=convs, head="svm", augment="corners", seed=3, report=heard
    )
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
@pytest.mark.parametrize("maps", [1, 10, 60])
def test_weights_for_maps_and_their_means_are_weights_for_maps(rows: int, maps: int) -> None:
    x = torch.rand(rows, 60, generator=torch.Generator().manual_seed(0))
    x[2] = 0.0
    x[3] = x[4]
    form = Form.of(x, maps)
    assert (form.turned is not None) == (rows == 5)
    length = form.rows.square().sum(dim=1).mean()
    assert float(length) == pytest.approx(1.0, rel=1e-4)
    if maps == 10 and rows == 200:
        means = form.rows[:, 60:].square().sum(dim=1).mean()
        assert float(means) == pytest.approx(SHARE, rel=1e-4)
    found = np.random.default_rng(0).normal(size=(3, rows)) @ form.rows.double().numpy()
    weights, bias = form.layer(found, np.ones(3))
    assert weights.shape == (3, 60)
    assert np.array_equal(bias, np.ones(3))
    want = form.rows.double().numpy() @ found.T
    assert np.allclose(x.double().numpy() @ weights.T, want, atol=1e-3 * np.abs(want).max())


def rbf_head(head: Solved, maps: int) -> RBFHead:
    units, width = head.tensors["centres"].shape
    net = RBFHead(units, width - maps, maps, len(head.bias))
    net.load_state_dict(head.tensors)
    return net


def test_weights_for_rows_of_a_kernel_are_weights_for_units() -> None:
    x = torch.rand(40, 5 * 4, generator=torch.Generator().manual_seed(0))
    x[2] = 0.0  # a black photo
    x[3] = x[4]
    x[5] = x[6] * (1 + 1e-6)
    kernel = Kernel.of(x, 5)
    length = kernel.rows.square().sum(dim=1)
    assert torch.allclose(length, torch.ones(40), atol=1e-5)
    u = kernel.centres.double()
    assert torch.allclose(u.norm(dim=1), (x.norm(dim=1) > 0).double())
    apart = torch.pdist(u).square()
    assert kernel.gamma == pytest.approx(1 / float(apart.quantile(0.5)), rel=0.01)
    found = np.random.default_rng(0).normal(size=(3, 40)) @ kernel.turned
    weights, bias = kernel.layer(found, np.arange(3.0))
    weight, at = torch.from_numpy(weights).float(), torch.from_numpy(bias).float()
    head = rbf_head(Solved(weight, at, kernel, (), None), 5)
    want = kernel.turned @ found.T + np.arange(3)
    assert np.allclose(head(x).detach().numpy(), want, atol=1e-3 * np.abs(want).max())


def test_an_rbf_head_parts_what_no_plane_does_and_its_probabilities_fit() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 2
    fold = np.arange(240) // 2 % 5

    def maps(labels: Rows) -> npt.NDArray[Any]:
        """Of class 0 one of two maps is strong, of class 1 both are or neither is."""
        first = rng.integers(2, size=len(labels))
        both = np.stack([first, np.where(labels == 0, 1 - first, first)], axis=1)
        rows = 3.0 * both[..., None] + np.abs(rng.normal(size=(len(labels), 2, 9)))
        return np.concatenate([rows, np.full((len(labels), 1, 9), 2.0)], axis=1).reshape(
            len(labels), 1, 27
        )

    x, many = maps(labels), np.arange(4000) % 2
    plane = solved(FitHead.MEAN, x, labels, fold, maps=3)
    head = solved(FitHead.RBF, np.repeat(x, 2, axis=1), labels, fold, maps=3, classes=3)
    assert plane.score < 0.8 < 0.95 < head.score
    assert head.kernel.centres.shape == (480, 27 + 3), "a unit for each view"
    assert head.weight.shape == (3, 480)
    net = rbf_head(head, 3)
    with torch.inference_mode():
        p = net(torch.from_numpy(maps(many)).float().flatten(1)).softmax(dim=1)
    assert float(p[:, 2].max()) < 1e-6, "a class without a photo is never named"
    right = float(np.mean(p.argmax(dim=1).numpy() == many))
    assert right > 0.95
    assert abs(float(p.max(dim=1).values.mean()) - right) < 0.04


def test_an_rbf_head_learns_from_no_more_views_than_it_may_have_units(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(solved_head, "UNITS", 100)
    rng = np.random.default_rng(0)
    labels = np.arange(30) % 2
    rows = np.abs(rng.normal(size=(30, 10, 4)) + labels[:, None, None])
    head = solved(FitHead.RBF, rows, labels, 0 * labels, maps=2)
    assert len(head.kernel.centres) == 90
    first = described(torch.from_numpy(rows[:1, :3]).float().flatten(0, 1), 2)
    assert torch.equal(head.kernel.centres[:3], first), "the centre and what comes next"


@pytest.mark.parametrize("kind", [FitHead.MEAN, FitHead.RBF])
def test_what_is_in_a_photo_and_where_it_is_are_both_learnt(kind: FitHead) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    fold = np.arange(90) // 3 % 5
    noise = rng.normal(size=(90, 4, 9))
    what, where = noise.copy(), noise.copy()
    what[np.arange(90), labels] += 1.0
    where[np.arange(90), 0, labels] += 4.0
    for x in (what, where):
        head = solved(kind, x.reshape(90, 1, 36), labels, fold, maps=4)
        assert [one.kind for one in head.members] == [FitHead.LOGISTIC, FitHead.SVM]
        alone = [np.mean(one.scores.argmax(axis=1) == labels) for one in head.members]
        assert head.score > 0.9
        assert head.score >= np.median(alone), "those that learn nothing weigh nothing"


def test_of_many_rows_and_classes_an_svm_is_fitted_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(2100) % 3
    rows = rng.normal(size=(2100, 1, 12)) + 2 * np.eye(3)[labels][:, None].repeat(4, 2)
    for classes, kinds in ((3, [FitHead.LOGISTIC, FitHead.SVM]), (300, [FitHead.SVM])):
        fold = np.arange(2100) % 2
        head = solved(FitHead.MEAN, rows, labels, fold, classes=classes, maps=3)
        assert [one.kind for one in head.members] == kinds
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
    assert best("run")["fc8.weight"].shape == (2, 130), "ten views of all 13"
    with pytest.raises(DataError, match="fewer than 7 folds"):
        finetune("photos", weights=convs, folds=7)


def test_an_rbf_head_goes_through_onnx_and_back(place: Path, convs: Path) -> None:
    pytest.importorskip("onnxscript", reason="the onnx extra is not installed")
    photos_in(place / "photos", {"ant": 4, "bee": 4, "cat": 4})
    finetune("photos", weights=convs, out="run")
    written = ExportOptions(path=Path("run"), out=Path("net.onnx"), data=Path("photos"))
    told = export(written, silent)
    assert told["checked"] == 12
    assert told["largest_difference"] < 1e-5
    run = load_backbone(None, Path("run/weights/best.safetensors"), seed=0)
    back = load_backbone(None, Path("net.onnx"), seed=0)
    assert isinstance(back.net.fc8, RBFHead)
    assert back.classes == ("ant", "bee", "cat")
    state = run.net.canonical_state_dict()
    assert "fc8.centres" in state
    assert same(state, back.net.canonical_state_dict())


@pytest.mark.parametrize("more", [2, 3])
def test_lower_layers_learn_for_a_gain_of_three_photos(
    place: Path, convs: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(unfreezing, "FEWEST", 4)
    monkeypatch.setattr(unfreezing, "judge", lambda work, plan: {"top1": 0.5})
    found = lambda rung, inner, *_: 0.5 + more / len(inner.judged)  # noqa: E731
    monkeypatch.setattr(unfreezing, "_tried", found)
    photos_in(place / "photos", {"ant": 20, "bee": 20})
    heard = Heard()
    result = finetune("photos", weights=convs, report=heard)
    assert result.get("unfrozen_after") == ("conv4" if more == 3 else None)
    assert ("no gain: it stays as it was" in heard.texts()) == (more == 2)


@pytest.mark.parametrize(("augment", "views"), [("auto", "ten"), ("views", "flip")])
def test_what_stored_views_say_together_is_what_validate_says(
    place: Path, convs: Path, augment: str, views: str
) -> None:
    photos_in(place / "photos", dict.fromkeys(("ant", "bee", "cat", "dog", "elk"), 15))
    heard = Heard()
    result = finetune("photos", weights=convs, augment=augment, freeze="fc8", report=heard)
    options = ValidateOptions(data=Path("photos"), weights=(result["run"],), views=views)
    judged = validate(options, silent)
    assert 0.3 < result["top1_of_views"] == judged["top1"] < 1.0, "two kinds look like others"
    assert (
        f"views: {judged['top1']:.1%} (predict and validate: --views {views})" in heard.texts()
    )
    assert result["views"] == views


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


def test_the_new_layer_and_its_views_go_by_the_number_of_photos(convs: Path) -> None:
    backbone = load_backbone(None, convs, seed=0)
    replace_head(backbone.net, 2, seed=0)

    def how(images: int, **words: Any) -> tuple[str, str]:
        made = settle_how(FinetuneOptions(**words), backbone, images, silent)
        assert made.after == "pool5"
        return made.head.value, made.augment.value

    assert how(409) == ("rbf", "corners")
    assert how(410) == how(UNITS) == ("rbf", "views")
    assert how(UNITS + 1) == ("mean", "views")
    assert how(9, augment=Augment.VIEWS) == ("rbf", "views")
    assert how(9, head=FitHead.SVM) == ("svm", "views")
    with pytest.raises(UsageError, match="there are 4,097") as caught:
        how(UNITS + 1, head=FitHead.RBF)
    assert caught.value.hint == "use --head mean"
    backbone.preprocess = replace(backbone.preprocess, resize=224)
    assert how(9) == ("rbf", "views"), "there are no corners to cut"
    whole = load_backbone("alexnet-owt", "random", seed=0)
    made = settle_how(FinetuneOptions(), whole, 9, silent)
    assert (made.head.value, made.after) == ("mean", "fc7")
    with pytest.raises(UsageError, match="this network's last layer reads fc7"):
        settle_how(FinetuneOptions(head=FitHead.RBF), whole, 9, silent)


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
