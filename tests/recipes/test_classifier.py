"""scikit-learn's words on fine-tuning, and the acceptance of what leaves a fine-tuned run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone

from alexkit import AlexNetClassifier, predict
from alexkit.cli.app import run
from alexkit.errors import DataError
from alexkit.models.zoo import load_backbone
from tests.conftest import photos_in
from tests.recipes.conftest import working_in


def test_fit_predict_score_and_clone(tmp_path: Path) -> None:
    photos_in(tmp_path / "photos", {"10": 4, "9": 4})
    paths = sorted((tmp_path / "photos").rglob("*.jpg"))
    labels = [int(path.parent.name) for path in paths]
    made = AlexNetClassifier(
        weights="random", model="resnet18", epochs=1, options={"batch_size": 4}
    )
    again = clone(made)
    assert again.get_params() == made.get_params()
    with working_in(tmp_path):
        order = np.random.default_rng(0).permutation(len(paths))
        again.fit([paths[i] for i in order], [labels[i] for i in order])
        assert again.classes_.tolist() == [9, 10], "as numbers, though folders sort 10 first"
        p = again.predict_proba(paths)
        assert p.shape == (8, 2)
        assert p.sum(axis=1) == pytest.approx(1)
        told = predict(paths, again.run_, top=2)
        for row, one in zip(p, told, strict=True):
            named = dict(zip(one.classes, one.values, strict=True))
            assert [named["9"], named["10"]] == row.tolist()
        predicted = again.predict(paths)
        assert predicted.dtype == again.classes_.dtype
        assert again.score(paths, labels) == (predicted == labels).mean()
        with pytest.raises(DataError, match=r"gone\.jpg"):
            again.predict([tmp_path / "gone.jpg"])
        with pytest.raises(DataError, match="8 images have labels of shape"):
            clone(made).fit(paths, labels[:3])


@pytest.mark.slow  # ALEXKIT_TEST_DATA=… pytest -m slow tests/recipes/test_classifier.py
@pytest.mark.parametrize(
    "learnt", [["--epochs", "1"], ["--freeze", "fc8"]], ids=["in epochs", "solved"]
)
def test_a_fine_tuned_run_its_onnx_and_predict_agree_on_a_hundred_photos(
    real_data: Path, tmp_path: Path, learnt: list[str]
) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")
    weights = real_data / "weights/alexnet-torchvision-features.pth"
    kinds = sorted(path for path in (real_data / "flowers").iterdir() if path.is_dir())
    for kind in kinds:
        (tmp_path / "flowers" / kind.name).mkdir(parents=True)
        for photo in sorted(kind.iterdir())[:20]:
            (tmp_path / "flowers" / kind.name / photo.name).symlink_to(photo)
    with working_in(tmp_path):
        words = ["--weights", str(weights), *learnt, "--out", "run"]
        assert run(["finetune", "flowers", *words]) == 0
        out = ["--out", "net.onnx", "--input", "pixels", "--images", "100"]
        assert run(["export", "run", *out]) == 0
        found = predict("flowers", "run", top=len(kinds), exif="apply")
        assert len(found) == 100
        backbone = load_backbone(None, tmp_path / "run/weights/best.safetensors", seed=0)
        assert backbone.classes == tuple(kind.name for kind in kinds)
        session = runtime.InferenceSession("net.onnx")
        images = [np.asarray(Image.open(one.path).convert("RGB")) for one in found]
        squares = np.stack([backbone.preprocess.square(image) for image in images])
        _, p = session.run(None, {"image": squares})
    x = backbone.preprocess.normalise(torch.from_numpy(squares))
    direct = backbone.net.eval()(x).softmax(dim=1).detach().numpy()
    for one, row, want in zip(found, p, direct, strict=True):
        named = dict(zip(one.classes, one.values, strict=True))
        mine = [named[name] for name in backbone.classes]
        assert np.abs(row - want).max() <= 1e-5
        assert np.abs(mine - want).max() <= 1e-5
