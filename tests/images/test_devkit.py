"""The development kit in each of its forms: number -> WordNet id -> place in the order."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from alexkit.errors import DataError
from alexkit.images.devkit import find_devkit
from tests.images.archives import tar_bytes, unpack

WNIDS = {1: "n02119789", 2: "n02100735", 3: "n01440764"}
TRUTH = b"3\n1\n2\n1\n"
EXPECTED = ["n01440764", "n02119789", "n02100735", "n02119789"]
INSIDE = "ILSVRC2012_devkit_t12/data"
TRUTH_NAME = "ILSVRC2012_validation_ground_truth.txt"


def meta_mat(wnids: dict[int, str] = WNIDS) -> bytes:
    """As in the real kit: leaves first, then inner nodes with numbers above theirs."""
    nodes = [(n, wnid, 0) for n, wnid in wnids.items()]
    nodes.append((len(nodes) + 1, "n00001740", 2))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = np.zeros((len(nodes), 1), kinds)
    for at, (number, wnid, children) in enumerate(nodes):
        synsets[at, 0] = (float(number), wnid, "some, words", float(children))
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"synsets": synsets})
    return buffer.getvalue()


def meta_csv() -> bytes:
    lines = [f'{n},{wnid},"a, b"' for n, wnid in WNIDS.items()]
    return "\n".join(["ILSVRC2015_CLSLOC_ID,WNID,name", *lines]).encode()


def solution() -> bytes:
    lines = [
        f"ILSVRC2012_val_{i:08d},{wnid} 1 2 3 4 {wnid} 5 6 7 8 "
        for i, wnid in enumerate(EXPECTED, start=1)
    ]
    return "\n".join(["ImageId,PredictionString", *reversed(lines)]).encode()


FORMS = {
    "archive": {
        "ILSVRC2012_devkit_t12.tar.gz": gzip.compress(
            tar_bytes({f"{INSIDE}/meta.mat": meta_mat(), f"{INSIDE}/{TRUTH_NAME}": TRUTH})
        )
    },
    "folder": {f"{INSIDE}/meta.mat": meta_mat(), f"{INSIDE}/{TRUTH_NAME}": TRUTH},
    "loose": {"meta.mat": meta_mat(), TRUTH_NAME: TRUTH},
    "csv": {
        "devkit/meta_clsloc.csv": meta_csv(),
        "devkit/ILSVRC2015_clsloc_validation_ground_truth.txt": TRUTH,
    },
    "kaggle": {"LOC_val_solution.csv": solution()},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_names_the_same_classes(tmp_path: Path, form: str) -> None:
    kit = find_devkit(unpack(tmp_path, FORMS[form]))
    assert kit is not None
    names = [f"ILSVRC2012_val_{i:08d}" for i in range(1, 5)]
    assert [kit.classes[name] for name in names] == EXPECTED
    assert len(kit.classes) == 4
    assert kit.place.startswith(str(tmp_path))


def test_no_kit(tmp_path: Path) -> None:
    assert (
        find_devkit(unpack(tmp_path, {"a/1.jpg": b"", "meta.mat": b"someone else's"})) is None
    )
    assert find_devkit(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({TRUTH_NAME: TRUTH}, "lacks meta.mat"),
        ({TRUTH_NAME: b"1\n4\n", "meta.mat": meta_mat()}, "line 2 of .* is '4', no class"),
        ({TRUTH_NAME: b"1\nx\n", "meta.mat": meta_mat()}, "line 2 of .* is 'x', no class"),
        ({TRUTH_NAME: TRUTH, "meta.mat": meta_mat()[:200]}, "cannot be read as MATLAB"),
        ({TRUTH_NAME: TRUTH, "meta.mat": b"hello"}, "cannot be read as MATLAB"),
        ({TRUTH_NAME: TRUTH, "meta_clsloc.csv": b"a,b\n1,2\n"}, "no columns"),
        (
            {TRUTH_NAME: TRUTH, "meta.mat": meta_mat({1: "n01", 2: "n02"})},
            "'n01' for a WordNet",
        ),
        (
            {TRUTH_NAME: TRUTH, "meta.mat": meta_mat({1: "n01440764", 2: "n01440764"})},
            "a class twice",
        ),
        ({"ILSVRC2012_devkit_t12.tar.gz": b"\x1f\x8bcut"}, "cannot be read"),
        ({"ILSVRC2012_devkit_t12.tar.gz": gzip.compress(tar_bytes({}))}, "lacks a validation"),
        ({"LOC_val_solution.csv": b"ImageId,PredictionString\nx,tench\n"}, "without a WordNet"),
    ],
)
def test_a_kit_that_cannot_be_trusted(
    tmp_path: Path, files: dict[str, bytes], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        find_devkit(unpack(tmp_path, files))


def test_the_real_ground_truth(real_data: Path) -> None:
    """Against facts from elsewhere: Caffe's ``val.txt``, made from the kit by its authors,
    begins 65, 970, 230, 809, 516 (places in the sorted order), 50 images of each class."""
    kit = find_devkit(real_data / "devkit")
    assert kit is not None
    mapping = (real_data / "devkit" / "LOC_synset_mapping.txt").read_text()
    order = [line.split()[0] for line in mapping.splitlines()]
    assert order == sorted(order)
    assert sorted(set(kit.classes.values())) == order
    place = {wnid: at for at, wnid in enumerate(order)}
    labels = [place[kit.classes[f"ILSVRC2012_val_{i:08d}"]] for i in range(1, 50_001)]
    assert labels[:5] == [65, 970, 230, 809, 516]
    assert np.bincount(labels).tolist() == [50] * 1000
