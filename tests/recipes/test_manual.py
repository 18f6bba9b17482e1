"""Every command line of README and manual is run, on small photos under the names it uses.

What :mod:`tests.test_docs` parses is typed here. A name stands for what it is in the manual: W
for weights without a classifier, RUN for a run folder. A fit is one epoch, and ``train`` takes
a small network where no recipe is named, which is all that is changed. Transcripts are run
where they are compared.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

from alexkit import extract
from alexkit.cli.app import run
from alexkit.models.zoo import load_backbone
from tests.conftest import Capsys, photos_in
from tests.recipes.conftest import working_in
from tests.test_docs import PAGES, command_lines, transcripts

STANDS_FOR = {
    "photos/": "mydata/",  # one folder by two names: what they are typed with is run once
    "hymenoptera/": "flowers/",
    "DATA": "mydata/",
    "FILE": "F.h5",
    "NAME": "bn60",
    "IMAGE…": "photo.jpg",
    "RUN": "runs/finetune-001",
    "W": "W.safetensors",
    "imagenet": "whole.safetensors",  # for --weights: torchvision's, which would be downloaded
}
# The head that --freeze fc8 solves at once has no epochs.
ONE_EPOCH = {"train": ["--epochs", "1"], "finetune": ["--epochs", "1"]}
SMALL = ["--model", "alexnet-bn", "--head", "gap"]
"""For ``train`` where a line names no recipe; ``alexnet`` is trained by the four lines."""
FIRST = ("finetune", "train", "features", "pack")
"""Commands that leave what others begin with."""
ELSEWHERE = ("demo", "sift-fv", "cuda")
"""Minutes long, and run by ``.ci/run``; half a minute, and run by ``test_sift_fv``; of a GPU,
which may not be there."""


def stands_for(words: list[str]) -> Iterator[str]:
    """A line of the manual with the names of what lies in :func:`manual_folder`."""
    for i, word in enumerate(words):
        again = word == "RUN" and word in words[:i]
        yield "runs/finetune-002" if again else STANDS_FOR.get(word, word)


def lines() -> list[list[str]]:
    """Every command line once, those first whose files others take."""
    found = {
        tuple(stands_for(words))
        for page in PAGES
        for words in command_lines(page)
        if len(words) > 1 and not words[0].startswith("-") and not set(ELSEWHERE) & set(words)
    }
    shown = {tuple(shlex.split(c)[1:]) for page in PAGES for c, _ in transcripts(page)}
    place = {name: i for i, name in enumerate(FIRST)}

    def when(words: tuple[str, ...]) -> tuple[int, bool, tuple[str, ...]]:
        return place.get(words[0], len(FIRST)), words[1].startswith("-"), words

    return [
        [
            *words,
            *([] if "--freeze" in words else ONE_EPOCH.get(words[0], [])),
            *(SMALL if words[0] == "train" and "--recipe" not in words else []),
        ]
        for words in sorted(found - shown, key=when)
    ]


def typed(words: list[str]) -> int:
    """The status of a line typed where nobody has written its file before."""
    if "--out" in words:
        Path(words[words.index("--out") + 1]).unlink(missing_ok=True)
    return run(words)


@pytest.fixture
def manual_folder(tmp_path: Path) -> Path:
    """The photos, weights and feature files that the manual speaks of."""
    for name in ("imagenet", "imagenette"):
        photos_in(tmp_path / name, dict.fromkeys(("train/a", "train/b", "val/a", "val/b"), 2))
    for name, count in (("flowers", 34), ("mydata", 5), ("imagenet-sample", 2)):
        photos_in(tmp_path / name, {"a": count, "b": count})
    photos_in(tmp_path, {"holiday": 2})
    shutil.copy(tmp_path / "holiday" / "photo000.jpg", tmp_path / "photo.jpg")
    net = load_backbone("alexnet-owt", "random", seed=0).net
    tensors = net.state_dict()
    save_file(tensors, tmp_path / "whole.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if name.startswith("conv")}
    save_file(kept, tmp_path / "W.safetensors")
    extract(
        tmp_path / "flowers",
        layers=["fc7"],
        model="alexnet",
        weights="random",
        out=tmp_path / "A.h5",
    )
    for name in ("B", "alexnet", "vgg16", "features"):
        shutil.copy(tmp_path / "A.h5", tmp_path / f"{name}.h5")
    return tmp_path


@pytest.mark.timeout(1200)  # a minute of two cores, where they are free
def test_every_line_of_the_manual_runs(manual_folder: Path, capsys: Capsys) -> None:
    with working_in(manual_folder):
        for words in lines():
            capsys.readouterr()
            assert typed(words) == 0, f"alexkit {shlex.join(words)}\n{capsys.readouterr().err}"
            for of_a_finished_fit in Path("runs").glob("*/state/step-*"):
                of_a_finished_fit.unlink()  # half a gigabyte each
