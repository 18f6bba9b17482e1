"""alexkit check on every kind of data: the same photos are the same findings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alexkit.cli.app import run
from alexkit.errors import DataError
from alexkit.events import silent
from alexkit.images.ilsvrc import TRAIN_TAR, VAL_TAR
from alexkit.images.opening import open_source
from alexkit.recipes import check
from alexkit.recipes.ledger import Ledger
from tests.conftest import Capsys, photos_in
from tests.images.archives import tar_bytes, unpack
from tests.images.test_hub import (
    FEATURES,
    image_column,
    pa,
    save_to_disk,
    wants_pyarrow,
    write_parquet,
)
from tests.images.test_ilsvrc import CLASSES, KIT, OF_NUMBER, TRUTH

pytestmark = pytest.mark.usefixtures("cache")

BROKEN = b"<html>not found</html>"
Photos = dict[str, dict[str, bytes]]


@pytest.fixture
def photos(tmp_path: Path) -> Photos:
    """Split -> class/name -> bytes: three classes; one photo is in both splits, one is none."""
    made = photos_in(tmp_path / "made", {f"train/{wnid}": 4 for wnid in CLASSES} | {"val": 7})
    train = {
        f"{wnid}/{wnid}_{n}.JPEG": (made / f"train/{wnid}/photo{n:03d}.jpg").read_bytes()
        for wnid in CLASSES
        for n in range(4)
    }
    train[f"{CLASSES[0]}/{CLASSES[0]}_3.JPEG"] = BROKEN
    val = {
        f"{OF_NUMBER[TRUTH[n]]}/ILSVRC2012_val_{n + 1:08d}.JPEG": (
            made / f"val/photo{n:03d}.jpg"
        ).read_bytes()
        for n in range(7)
    }
    number = TRUTH.index(3) + 1
    val[f"{CLASSES[0]}/ILSVRC2012_val_{number:08d}.JPEG"] = train[
        f"{CLASSES[0]}/{CLASSES[0]}_0.JPEG"
    ]
    shutil.rmtree(made)
    return {"train": train, "val": val}


def tree(root: Path, photos: Photos) -> Path:
    return unpack(
        root, {f"{s}/{name}": b for s, files in photos.items() for name, b in files.items()}
    )


def class_tars(photos: Photos) -> dict[str, bytes]:
    return {
        f"{wnid}.tar": tar_bytes(
            {Path(k).name: data for k, data in photos["train"].items() if k.startswith(wnid)}
        )
        for wnid in CLASSES
    }


def val_tar(photos: Photos) -> bytes:
    return tar_bytes({Path(name).name: data for name, data in photos["val"].items()})


def ilsvrc(root: Path, photos: Photos) -> Path:
    files = {TRAIN_TAR: tar_bytes(class_tars(photos)), VAL_TAR: val_tar(photos)}
    return unpack(root, files | KIT)


def half_unpacked(root: Path, photos: Photos) -> Path:
    inner = {f"train/{name}": data for name, data in class_tars(photos).items()}
    val = {f"val/{Path(name).name}": data for name, data in photos["val"].items()}
    return unpack(root, inner | val | KIT)


def webdataset(root: Path, photos: Photos) -> Path:
    shards = {}
    for split, files in photos.items():
        inside: dict[str, bytes] = {}
        for number, (name, data) in enumerate(files.items()):
            inside |= {f"{number:03d}.jpg": data, f"{number:03d}.cls": name[:9].encode()}
        shards[f"set-{split}-000.tar"] = tar_bytes(inside)
    return unpack(root, shards)


def a_table(files: dict[str, bytes]) -> Any:
    features = {
        "picture": FEATURES["picture"],
        "kind": {"names": list(reversed(CLASSES)), "_type": "ClassLabel"},
    }
    images = image_column([{"bytes": data, "path": name} for name, data in files.items()])
    numbers = [len(CLASSES) - 1 - CLASSES.index(name[:9]) for name in files]
    kept = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    columns = {"picture": images, "kind": pa.array(numbers)}
    return pa.table(columns).replace_schema_metadata(kept)


def parquet(root: Path, photos: Photos) -> Path:
    for split, files in photos.items():
        write_parquet(root / "data" / f"{split}-00000-of-00001.parquet", a_table(files))
    return root


def saved(root: Path, photos: Photos) -> Path:
    for split, files in photos.items():
        save_to_disk(root / split, a_table(files), split)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": list(photos)}))
    return root


def a_list(root: Path, photos: Photos) -> Path:
    tree(root, photos)
    lines = [f"{s}/{name},{name[:9]},{s}" for s, files in photos.items() for name in files]
    (root / "all.csv").write_text("\n".join(lines))
    return root / "all.csv"


def packed(root: Path, photos: Photos) -> Path:
    data = tree(root / "tree", photos)
    assert run(["pack", str(data), "--out", str(root / "x.pack"), "--json"]) == 0
    return root / "x.pack"


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("folder", tree),
        ("list", a_list),
        ("ilsvrc", ilsvrc),
        ("ilsvrc", half_unpacked),
        ("webdataset", webdataset),
        pytest.param("datasets", parquet, marks=wants_pyarrow),
        pytest.param("datasets", saved, marks=wants_pyarrow),
        ("pack", packed),
    ],
)
@pytest.mark.parametrize("sampled", [False, True])
def test_the_same_photos_are_the_same_findings(
    kind: str,
    make: Callable[[Path, Photos], Path],
    sampled: bool,
    photos: Photos,
    tmp_path: Path,
) -> None:
    source = open_source(make(tmp_path / "data", photos))
    ledger = Ledger(None, strict=False, report=silent)
    result = check.examine(
        source, images=6 if sampled else 0, seed=0, threads=2, ledger=ledger, report=silent
    )
    assert result["kind"] == kind
    assert result["classes"] == list(CLASSES)
    assert result["images"] == 12 + 7
    assert result["splits"] == {"train": 12, "val": 7}
    assert result["unlabelled"] == 0
    assert sum(result["per_class"]) == 19
    assert result["looked_at"] == (6 if sampled else 19)
    everywhere = not sampled or kind in ("folder", "list", "ilsvrc", "webdataset")
    assert result["compared"] == (19 if everywhere else 6)
    if everywhere:
        assert [len(rows) for rows in result["duplicates"]] == [2]
        (leak,) = [one["text"] for one in result["findings"] if one["wrong"]]
        assert leak.startswith("1 image in more than one split, e.g. ")
        with pytest.raises(DataError, match="in more than one split"):
            check.raise_if_wrong(result)
    else:
        check.raise_if_wrong(result)
    if not sampled:
        (reason,) = result["bad"].values()
        assert reason == "not an image but an HTML page"


@pytest.mark.parametrize("images", [0, 1, 3])
def test_the_same_error_page_in_two_places_is_no_image_twice(
    photos: Photos, tmp_path: Path, images: int
) -> None:
    for files, name in (
        (photos["train"], "n01440764/a.JPEG"),
        (photos["val"], "n02119789/b.JPEG"),
    ):
        files[name] = BROKEN
    source = open_source(tree(tmp_path, photos))
    ledger = Ledger(None, strict=False, report=silent)
    result = check.examine(
        source, images=images, seed=0, threads=1, ledger=ledger, report=silent
    )
    ((first, second),) = result["duplicates"]
    assert (first[:6], second[:4]) == ("train/", "val/")
    assert (tmp_path / first).read_bytes() == (tmp_path / second).read_bytes() != BROKEN


def test_how_many_were_compared_is_on_the_screen(
    photos: Photos, tmp_path: Path, capsys: Capsys
) -> None:
    data = packed(tmp_path, photos)
    capsys.readouterr()
    assert run(["check", str(data), "--images", "6"]) == 0
    told = capsys.readouterr().out
    assert "0 among 6 compared" in told
    assert "a pack of all" not in told
    assert max(map(len, told.splitlines())) <= 80
