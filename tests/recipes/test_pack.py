"""``alexkit pack`` as a command: killed, full, damaged; and what other commands get of it."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from alexkit.images.packed import open_pack
from alexkit.recipes.run_dir import read_record
from tests.conftest import Capsys, photos_in, textured_rgb
from tests.recipes.conftest import Refused, ResultOf, working_in
from tests.recipes.struck import struck

PHOTOS = 300
PACK = ["pack", "photos", "--size", "192", "--workers", "1"]
KINDS = ("pixels", "jpeg")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``photos``, 300 and one bad, and packs of them that were never killed."""
    folder = tmp_path_factory.mktemp("packing")
    photos_in(folder / "photos", {"train/ant": 200, "train/bee": 80, "val/ant": 20})
    (folder / "photos/train/bee/broken.jpg").write_bytes(b"\xff\xd8 no image")
    with working_in(folder):
        for keep in KINDS:
            assert run([*PACK, "--keep", keep, "--out", f"{keep}.pack"]) == 0
    return folder


@pytest.mark.parametrize("keep", KINDS)
def test_killed_twice_the_file_is_byte_equal(place: Path, keep: str, capsys: Capsys) -> None:
    out = f"killed-{keep}.pack"
    words = [*PACK, "--keep", keep, "--out", out]
    for says in ('"event": "stage_started"', '"done": 128'):
        child = struck([*words, "--json"], says, signal.SIGKILL, place)
        assert child.returncode == -signal.SIGKILL
        assert not (place / out).exists()
        assert run(["info", str(place / f"{out}.partial")]) == 0
        assert "the same command continues it" in capsys.readouterr().out
        assert run(["info", str(place / f"{out}.partial"), "--verify"]) == 4
    with working_in(place):
        assert run(words) == 0
    assert "of it still to be written; " in capsys.readouterr().err
    assert (place / out).read_bytes() == (place / f"{keep}.pack").read_bytes()
    assert not (place / f"{out}.partial").exists()


def test_stopped_by_a_signal_it_goes_on(place: Path) -> None:
    words = [*PACK, "--out", "S.pack"]
    assert struck([*words, "--json"], '"done": 64', signal.SIGTERM, place).returncode == 130
    assert not (place / "S.pack").exists()
    with working_in(place):
        assert run(words) == 0
    assert (place / "S.pack").read_bytes() == (place / "pixels.pack").read_bytes()


def test_the_budget_is_said_first(place: Path, here: Path, capsys: Capsys) -> None:
    assert run(["pack", str(place / "photos"), "--size", "32", "--out", "a.pack"]) == 0
    told = capsys.readouterr()
    _, budget, first_of_work, *_ = told.err.splitlines()
    assert budget.startswith("the pack takes 924.7 kB (301 images × 32 × 32 × 3 bytes); ")
    assert f"are free in {here}" in budget
    assert first_of_work == "pack: 301 images"
    assert "train/bee/broken.jpg" in told.err
    assert "32 × 32" in told.out


def test_the_budget_of_jpeg_files_is_measured(place: Path, here: Path, capsys: Capsys) -> None:
    words = ["pack", str(place / "photos"), "--size", "32", "--keep", "jpeg"]
    assert run([*words, "--quality", "80", "--out", "a.pack", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (budget,) = (line["text"] for line in lines if "judging by" in line.get("text", ""))
    said = re.match(
        r"the pack takes about (\S+) kB \(301 images × \S+ kB, judging by 32 of", budget
    )
    assert said
    with h5py.File("a.pack") as file:
        assert float(said[1]) == pytest.approx(len(file["jpeg"]) / 1000, rel=0.1)
    assert lines[-1]["result"]["holds"] == "32 × 32 pixels as JPEG of quality 80, 4:4:4"


def test_without_out_there_is_a_run_folder(place: Path, here: Path) -> None:
    assert run(["pack", str(place / "photos"), "--size", "32"]) == 0
    record = read_record(here / "runs/pack-001")
    assert record["state"] == "done"
    result = record["result"]
    assert (result["images"], result["bad"], result["repaired"]) == (301, 1, 0)
    assert result["fingerprint"] == open_pack(here / "runs/pack-001/images.pack").fingerprint()
    ledger = (here / "runs/pack-001/bad_images.csv").read_text().splitlines()
    assert len(ledger) == 2
    assert ledger[1].startswith("train/bee/broken.jpg,")


@pytest.mark.parametrize(("keep", "said"), [("pixels", "0.0593 GB"), ("jpeg", "about 0.0")])
def test_a_full_disk_is_one_line_and_status_5(
    place: Path, keep: str, said: str, small_disk: Path, refused: Refused
) -> None:
    out = str(small_disk / "x.pack")
    words = ["pack", str(place / "photos"), "--keep", keep, "--out", out]
    refused(words, 5, f"needs {said}")
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["pack"], 2, "alexkit pack DATA"),
        (["pack", "nowhere", "--out", "x.pack"], 3, "nowhere"),
        (["pack", "bad", "--out", "x.pack"], 3, "none of the 2 images"),
        (["pack", "bad", "--out", "x.pack", "--size", "5000"], 2, "4096"),
        (["pack", "bad", "--out", "x.pack", "--size", "4"], 2, "--size"),
        (["pack", "bad", "--out", "x.pack", "--keep", "jpeg"], 3, "none of the 2 images"),
        (["pack", "bad", "--out", "x.pack", "--quality", "90"], 2, "--keep jpeg"),
        (["pack", "bad", "--out", "x.pack", "--keep", "jpeg", "--quality", "101"], 2, "100"),
        (["info", "bad/a.jpg", "--verify"], 2, "no pack"),
    ],
)
def test_wrong_input(
    words: list[str], status: int, said: str, here: Path, refused: Refused
) -> None:
    (here / "bad").mkdir()
    for name in ("a.jpg", "b.jpg"):
        (here / "bad" / name).write_bytes(b"no image")
    refused(words, status, said)
    assert not list(here.glob("x.pack*"))


def test_strict_stops_at_the_first(place: Path, here: Path) -> None:
    words = ["pack", str(place / "photos"), "--size", "32", "--out", "x.pack"]
    assert run([*words, "--strict"]) == 3
    assert not Path("x.pack").exists()
    assert run(words) == 0


def test_exif_is_obeyed_when_asked_and_what_reads_the_pack_knows(
    here: Path, capsys: Capsys
) -> None:
    Path("photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(textured_rgb(0, 64, 64)).save("photos/a.jpg", exif=exif)
    for how in ("ignore", "apply"):
        assert run(["pack", "photos", "--exif", how, "--out", f"{how}.pack"]) == 0
    words = ["features", "apply.pack", "--weights", "random", "--model", "alexnet-owt"]
    assert run([*words, "--layer", "pool1", "--out", "f.h5"]) == 0
    assert "exif: apply (as the pack was made)" in capsys.readouterr().err
    with FeatureStore.open(Path("f.h5")) as store:
        assert store.provenance["preprocessing"]["exif"] is True
    upright = open_pack(Path("apply.pack")).decoded(0)
    assert upright.remark == "EXIF orientation 6 applied"
    assert (upright.rgb != open_pack(Path("ignore.pack")).decoded(0).rgb).any()


class TestInfo:
    @pytest.mark.parametrize("keep", KINDS)
    def test_says_what_it_is(self, place: Path, keep: str, result_of: ResultOf) -> None:
        path = place / f"{keep}.pack"
        result = result_of(["info", str(path), "--verify"])
        facts = result[str(path)]
        assert facts["images"] == PHOTOS + 1
        assert facts["images unreadable"] == 1
        assert facts["classes"] == 2
        assert facts["complete"] == "yes"
        assert facts["verified"] == "every block is as it was written"
        assert facts["holds"] == "192 × 192 pixels" + (
            " as JPEG of quality 90, 4:4:4" if keep == "jpeg" else ""
        )
        assert result["provenance"].get("encoding.quality") == (90 if keep == "jpeg" else None)
        assert result["provenance"]["source.kind"] == "folder"
        (odd,) = result["unreadable, repaired or converted"].items()
        assert odd[0] == "train/bee/broken.jpg"
        assert odd[1] == "not an image, or of an unsupported format"
        assert result["provenance"]["preprocessing.resize"] == 192

    @pytest.mark.parametrize("keep", KINDS)
    def test_verify_finds_one_wrong_byte(
        self, place: Path, keep: str, here: Path, capsys: Capsys
    ) -> None:
        data = bytearray((place / f"{keep}.pack").read_bytes())
        data[-1] ^= 1  # the last row's last pixel
        Path("edited.pack").write_bytes(data)
        assert run(["info", "edited.pack"]) == 0
        assert run(["info", "edited.pack", "--verify"]) == 4
        assert "rows 256 to 300" in capsys.readouterr().err


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("both")
    photos_in(folder / "photos", {"train/ant": 5, "train/bee": 5, "val/ant": 2})
    (folder / "photos/train/ant/broken.jpg").write_bytes(b"\xff\xd8 no image")
    with working_in(folder):
        assert run(["pack", "photos", "--out", "photos.pack"]) == 0
        assert run(["pack", "photos", "--keep", "jpeg", "--out", "small.pack"]) == 0
    return folder


class TestInPlaceOfTheOriginals:
    """At the default size everything computed from a pack equals what the photos give."""

    def test_training_gives_the_same_weights(self, both: Path) -> None:
        words = ["--model", "alexnet-bn", "--head", "gap", "--epochs", "1", "--batch-size", "4"]
        ends = []
        with working_in(both):
            for data in ("photos", "photos.pack"):
                out = Path(f"from-{data}")
                assert run(["train", data, *words, "--out", str(out)]) == 0
                ledger = (out / "bad_images.csv").read_text()
                ends.append(((out / "weights/last.safetensors").read_bytes(), ledger))
        assert ends[0] == ends[1]
        assert "broken.jpg" in ledger

    def features(self, data: str) -> tuple[np.ndarray, tuple[str, ...], dict[int, str]]:
        words = ["--weights", "random", "--model", "alexnet-owt", "--layer", "pool5"]
        assert run(["features", data, *words, "--overwrite", "--out", f"{data}.h5"]) == 0
        with FeatureStore.open(Path(f"{data}.h5")) as store:
            return store.matrix("pool5"), store.paths, store.reasons

    def test_features_are_the_same_or_near_and_that_is_said(
        self, both: Path, capsys: Capsys
    ) -> None:
        with working_in(both):
            x, *rows = self.features("photos")
            same, *its_rows = self.features("photos.pack")
            assert "warning" not in capsys.readouterr().err
            near, *other_rows = self.features("small.pack")
        assert "of quality 90, 4:4:4: near what the network" in capsys.readouterr().err
        assert rows == its_rows == other_rows
        assert (x == same).all()
        assert 0 < np.linalg.norm(near - x) < 0.2 * np.linalg.norm(x)

    def test_other_pixels_are_warned_of(self, both: Path, capsys: Capsys) -> None:
        words = ["features", "photos.pack", "--weights", "random", "--layer", "pool5"]
        with working_in(both):
            assert run([*words, "--model", "bvlc-alexnet"]) == 0
        assert "was packed with mode 'short', not 'squash'" in capsys.readouterr().err
