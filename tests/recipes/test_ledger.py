"""The ledger of bad and repaired images: each once, at once, through kills and to the count."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest
from PIL import Image

from alexkit.cli.app import run
from alexkit.errors import UnreadableImage
from alexkit.events import BadImage, Event, Note, silent
from alexkit.recipes.ledger import HEADER, USED, Ledger
from alexkit.recipes.run_dir import read_record
from tests.conftest import Capsys, photos_in
from tests.recipes.struck import struck

RANDOM = ["--weights", "random", "--model", "squeezenet1_1", "--layer", "flatten"]


def rows(path: Path) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [tuple(row) for row in csv.reader(file)]


def test_a_row_is_in_the_file_as_soon_as_it_is_met(tmp_path: Path) -> None:
    told: list[Event] = []
    file = tmp_path / "bad.csv"
    ledger = Ledger(file, strict=False, report=told.append)
    assert rows(file) == [HEADER]
    ledger.add("a, b.jpg", 'says "no"', "left out")
    ledger.add_used("c\nd.png", "alpha on white")
    ledger.add("a, b.jpg", 'says "no"', "left out")
    ledger.add_used("c\nd.png", "alpha on white")
    expected = [
        HEADER,
        ("a, b.jpg", 'says "no"', "left out"),
        ("c\nd.png", "alpha on white", USED),
    ]
    assert rows(file) == expected
    assert (ledger.bad, ledger.repaired) == (1, 1)
    ledger.close()
    assert told == [
        BadImage("a, b.jpg", 'says "no"', "left out", str(file)),
        Note(f"1 image was repaired or converted, and used; {file} says which"),
    ]


@pytest.mark.parametrize("cut", ["c.jpg,bro", "c.jpg,broken,le", '"c\n.jpg'])
def test_a_continued_ledger_keeps_its_rows_and_drops_a_cut_line(
    tmp_path: Path, cut: str
) -> None:
    file = tmp_path / "bad.csv"
    first = Ledger(file, strict=False, report=silent)
    first.add("a.jpg", "broken", "left out")
    first.add_used("b.jpg", "CMYK converted")
    with file.open("a") as text:
        text.write(cut)  # killed here, or the disk was full
    second = Ledger(file, strict=False, report=silent)
    assert (second.bad, second.repaired) == (1, 1)
    second.add("c.jpg", "broken", "left out")
    second.add("a.jpg", "broken", "left out")
    assert rows(file) == [
        HEADER,
        ("a.jpg", "broken", "left out"),
        ("b.jpg", "CMYK converted", USED),
        ("c.jpg", "broken", "left out"),
    ]


def test_strict_is_about_bad_images_alone(tmp_path: Path) -> None:
    ledger = Ledger(None, strict=True, report=silent)
    ledger.add_used("a.png", "alpha on white")
    with pytest.raises(UnreadableImage, match=r"b\.png: broken"):
        ledger.add("b.png", "broken", "left out")


@pytest.fixture
def mixed(here: Path) -> Path:
    """Photos of which one is broken, one CMYK and one see-through."""
    root = photos_in(here / "photos", {"ant": 4, "bee": 4})
    (root / "ant" / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    Image.new("CMYK", (40, 40), (9, 80, 20, 0)).save(root / "bee" / "cmyk.jpg")
    Image.new("RGBA", (40, 40), (9, 80, 20, 99)).save(root / "bee" / "glass.png")
    return root


ODD = {
    "ant/broken.jpg": "not an image, or of an unsupported format",
    "bee/cmyk.jpg": "CMYK converted",
    "bee/glass.png": "alpha on white",
}


def test_features_tell_of_each(mixed: Path, capsys: Capsys) -> None:
    assert run(["features", "photos", *RANDOM]) == 0
    folder = Path("runs/features-001")
    found = {path: (reason, action) for path, reason, action in rows(folder / "bad_images.csv")}
    del found["path"]
    assert {path: reason for path, (reason, _) in found.items()} == ODD
    assert found["ant/broken.jpg"][1] == "row holds NaN"
    assert found["bee/cmyk.jpg"][1] == USED
    result = read_record(folder)["result"]
    assert (result["bad"], result["repaired"]) == (1, 2)
    assert "2 images were repaired or converted" in capsys.readouterr().err


def test_a_killed_extraction_has_told_of_every_image(here: Path) -> None:
    (here / "glass").mkdir()
    for i in range(40):
        Image.new("RGBA", (300, 300), (9, 80, 20, i)).save(here / "glass" / f"{i:02}.png")
    (here / "glass" / "00.png").write_bytes(b"<html>")
    words = ["features", "glass", *RANDOM, "--batch-size", "1", "--out", "one"]
    ledger = Path("one/bad_images.csv")
    child = struck([*words, "--json"], '"stage": "features", "done": 6,', signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    assert 6 < len(rows(ledger)) <= 41
    assert run(words) == 0
    told = rows(ledger)[1:]
    assert sorted(path for path, _, _ in told) == [f"{i:02}.png" for i in range(40)]
    result = read_record(Path("one"))["result"]
    assert (result["bad"], result["repaired"]) == (1, 39)


def test_training_and_judging_tell_of_each_once(mixed: Path) -> None:
    words = ["train", "photos", "--model", "alexnet-bn", "--head", "gap", "--epochs", "2"]
    assert run([*words, "--batch-size", "4"]) == 0
    folder = Path("runs/train-001")
    told = rows(folder / "bad_images.csv")[1:]
    assert {path: reason for path, reason, _ in told} == ODD
    assert len(told) == 3
    result = read_record(folder)["result"]
    assert (result["bad"], result["repaired"]) == (1, 2)


def test_all_repaired_is_not_all_bad(here: Path) -> None:
    (here / "glass").mkdir()
    Image.new("RGBA", (40, 40), (9, 80, 20, 99)).save(here / "glass" / "one.png")
    assert run(["features", "glass", *RANDOM, "--strict"]) == 0
