"""Whatever is wrong with the input: one error line, one hint line, the right exit status,
nothing half-written left behind."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from alexkit.cli.app import run
from alexkit.models.specs import find_spec
from alexkit.recipes.run_dir import read_record
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import Refused


@pytest.fixture(autouse=True)
def place(here: Path) -> Path:
    """An empty working folder with some good data and some bad."""
    photos_in(here / "photos", {"ant": 3, "bee": 3})
    photos_in(here / "one-class", {"ant": 3})
    (here / "empty").mkdir()
    (here / "not-images").mkdir()
    for name in ("not-images/a.jpg", "not-images/b.jpg"):
        (here / name).write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(here / "one.png")
    (here / "file.bin").write_bytes(b"\0" * 100)
    (here / "notes.safetensors").write_bytes(b"\0" * 100)
    state = {
        name: torch.zeros(tensor.shape)
        for name, tensor in find_spec("alexnet-owt").empty().canonical_state_dict().items()
        if name.startswith("conv")
    }
    torch.save(state, here / "convs.pth")
    torch.save({**state, "conv1.weight": torch.zeros(3, 3)}, here / "misfit.pth")
    torch.save({"resnet.weight": torch.zeros(3, 3)}, here / "foreign.pth")

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (here / "executed",))

    (here / "evil.pth").write_bytes(pickle.dumps(Evil()))
    return here


RANDOM = ["--weights", "random", "--model", "squeezenet1_1"]
SMALL = [*RANDOM, "--layer", "flatten"]
OWT = ["--weights", "random", "--model", "alexnet-owt"]
CASES = [
    (["train"], 2, "alexkit train imagenet/"),
    (["train", "photo"], 3, "photos"),
    (["train", "empty"], 3, "empty"),
    (["train", "one-class"], 3, "one class"),
    (["train", "file.bin"], 3, "file.bin"),
    (["train", "photos", "--model", "alexnet-ovt"], 2, "alexnet-owt"),
    (["train", "photos", "--device", "cuda"], 5, "--device cpu"),
    (["train", "photos", "--device", "cuda:0,1"], 5, "no GPU"),
    (["train", "photos", "--device", "tpu"], 2, "cuda:0,1"),
    (["train", "one.png"], 3, "the folder that holds it"),
    (["features"], 2, "alexkit features photos/"),
    (["features", "empty", *RANDOM], 3, "empty"),
    (["features", "not-images", *SMALL, "--out", "f.h5"], 3, "none of the 2 images"),
    (["features", "photos", *OWT, "--layer", "fc9"], 2, "did you mean fc8?"),
    (["features", "photos", "--weights", "random"], 2, "--model"),
    (["features", "photos", "--weights", "nowhere.pth"], 2, "nowhere.pth"),
    (["features", "photos", "--weights", "photos"], 2, "best.safetensors"),
    (["features", "photos", "--weights", "convs.pth"], 4, "fc6.weight"),
    (["features", "photos", "--weights", "misfit.pth"], 4, "misfit.pth"),
    (["features", "photos", "--weights", "foreign.pth"], 4, "resnet.weight"),
    (["features", "photos", "--weights", "evil.pth"], 4, "nothing in it was run"),
    (["features", "photos", "--weights", "notes.safetensors"], 4, "notes.safetensors"),
    (["features", "photos", "--weights", "imagenet", "--model", "alexnet"], 2, "published"),
    (
        ["features", "photos", *RANDOM, "--merge", "virtual", "--compress", "gzip"],
        2,
        "leave out one of the two",
    ),
    (["features", "photos", "--out", "file.bin", *SMALL], 2, "file.bin"),
    (["features", "photos", "--out", "photos", *SMALL], 2, "choose another --out"),
    (["finetune"], 2, "alexkit finetune mydata/"),
    (["finetune", "one-class", *RANDOM], 3, "one class"),
    (["finetune", "photos", "--weights", "convs.pth", "--freeze", "fc7"], 2, "conv5"),
    (["eval"], 2, "alexkit features DATA"),
    (["eval", "nowhere.h5"], 3, "nowhere.h5"),
    (["eval", "file.bin"], 4, "file.bin"),
    (["info"], 2, "alexkit info FILE"),
    (["info", "nowhere"], 3, "nowhere"),
    (["info", "file.bin"], 4, "file.bin"),
    (["info", "empty"], 4, "empty"),
    (["info", "evil.pth"], 4, "nothing in it was run"),
    (["check", "n" * 300], 2, "a name is too long"),
    (["pack", "photos", "--out", "n" * 250 + ".pack"], 2, "a name is too long"),
    (["features", "photos", *SMALL, "--out", "n" * 254 + ".h5"], 2, "a name is too long"),
    (["train", "photos", "--out", "n" * 300], 2, "a name is too long"),
]


@pytest.mark.parametrize(
    ("words", "status", "said"), CASES, ids=[" ".join(words)[:80] for words, _, _ in CASES]
)
def test_one_error_line_one_hint_line(
    words: list[str], status: int, said: str, place: Path, refused: Refused
) -> None:
    before = sorted(place.rglob("*"))
    refused(words, status, said)
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(
    "words",
    [
        ["features", "photos", *SMALL],
        ["finetune", "photos", "--weights", "convs.pth", "--epochs", "1"],
    ],
)
def test_strict_stops_at_the_first(words: list[str], place: Path, capsys: Capsys) -> None:
    (place / "photos" / "ant" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    assert run([*words, "--strict"]) == 3
    assert "ant/broken.jpg" in capsys.readouterr().err.splitlines()[-2]


def test_a_diverging_loss_ends_with_status_6(place: Path, capsys: Capsys) -> None:
    words = ["finetune", "photos", "--weights", "convs.pth", "--lr", "1e30", "--epochs", "9"]
    # Weights of zero give no gradient; these let the new layer blow up.
    state = torch.load(place / "convs.pth", weights_only=True)
    torch.save({name: tensor + 0.01 for name, tensor in state.items()}, place / "convs.pth")
    assert run([*words, "--batch-size", "2"]) == 6
    *_, error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("error: training diverged: ")
    assert "--lr" in hint
    assert read_record(Path("runs/finetune-001"))["state"] == "failed"
