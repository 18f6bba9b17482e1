"""alexkit check: clean data passes, and each trap is told in words that name the way out."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexkit.cli.app import run
from alexkit.images.duplicates import equal_rows
from alexkit.images.folder import open_folder
from alexkit.images.opening import open_source
from alexkit.images.survey import survey
from alexkit.recipes import check
from alexkit.recipes.traps import Finding, traps
from tests.conftest import Capsys, photos_in

CLEAN = {"train/ant": 3, "train/bee": 3, "val/ant": 2, "val/bee": 2}


def findings(data: Path) -> list[Finding]:
    source = open_source(data)
    looks = list(survey(source, np.arange(len(source)), threads=2))
    same = equal_rows((look.row, look.digest) for look in looks if look.digest)
    return traps(source, looks, same, fraction=0.1, seed=0)


def the_one(data: Path) -> Finding:
    """The only thing found."""
    (finding,) = findings(data)
    return finding


def wrong(data: Path) -> list[str]:
    return [finding.text for finding in findings(data) if finding.wrong]


class TestCommand:
    def test_clean_data_passes_and_nothing_is_written(self, here: Path, capsys: Capsys) -> None:
        photos_in(here / "photos", CLEAN)
        before = sorted(here.rglob("*"))
        assert run(["check", "photos", "--json"]) == 0
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        result = events[-1]["result"]
        assert result["images"] == result["looked_at"] == 10
        assert result["classes"] == ["ant", "bee"]
        assert result["per_class"] == [5, 5]
        assert result["splits"] == {"train": 6, "val": 4}
        assert result["formats"] == {"JPEG": 10}
        assert (result["widths"], result["heights"]) == ([128] * 3, [96] * 3)
        assert result["findings"] == result["duplicates"] == []
        assert result["bad"] == result["repaired"] == {}
        speed = result["speed"]
        assert all(speed[name] > 0 for name in ("loading", "forward", "forward_backward"))
        # 6 images forward and back, 4 forward, all 10 loaded with the same cores.
        expected = 10 / speed["loading"] + 6 / speed["forward_backward"] + 4 / speed["forward"]
        assert speed["epoch_seconds"] == pytest.approx(expected)
        assert speed["pack_bytes"] == 10 * 256 * 256 * 3
        assert sorted(here.rglob("*")) == before

    def test_one_screen(self, tmp_path: Path, capsys: Capsys) -> None:
        photos_in(tmp_path / "photos", CLEAN)
        shutil.copy(tmp_path / "photos/train/ant/photo000.jpg", tmp_path / "photos/val/ant")
        (tmp_path / "photos/val/bee/broken.jpg").write_bytes(b"<html>")
        assert run(["check", str(tmp_path / "photos")]) == 3
        told = capsys.readouterr()
        lines = told.out.splitlines()
        assert len(lines) <= 40
        assert max(map(len, lines)) <= 80
        assert "WRONG" in told.out
        error, hint = told.err.splitlines()[-2:]
        assert error.startswith("error: training on ")
        assert hint.startswith("hint: ")

    def test_the_list_of_bad_images(self, here: Path, capsys: Capsys) -> None:
        photos_in(here / "photos", {"ant": 2, "bee": 2})
        (here / "photos/bee/broken.jpg").write_bytes(b"<html>")
        Image.new("CMYK", (9, 9)).save(here / "photos/ant/cmyk.jpg")
        words = ["check", "photos", "--out", "lists/bad.csv"]
        for more in ([], ["--overwrite"]):
            assert run([*words, *more]) == 0
            assert list(csv.reader(Path("lists/bad.csv").read_text().splitlines())) == [
                ["path", "reason", "action"],
                ["ant/cmyk.jpg", "CMYK converted", "used"],
                ["bee/broken.jpg", "not an image but an HTML page", "cannot be used"],
            ]
        assert run(words) == 2
        assert run([*words[:-1], "photos", "--overwrite"]) == 2
        assert (here / "photos").is_dir()
        assert run([*words, "--overwrite", "--strict"]) == 3
        assert "bee/broken.jpg" in capsys.readouterr().err

    def test_a_pack_is_checked_like_its_originals(self, tmp_path: Path, capsys: Capsys) -> None:
        photos = photos_in(tmp_path / "photos", CLEAN)
        shutil.copy(photos / "train/ant/photo000.jpg", photos / "val/ant/other.jpg")
        (photos / "train/bee/broken.jpg").write_bytes(b"<html>")
        assert run(["pack", str(photos), "--out", str(tmp_path / "x.pack")]) == 0
        capsys.readouterr()
        found = []
        for data in (photos, tmp_path / "x.pack"):
            assert run(["check", str(data), "--json"]) == 3
            events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            found.append(events[-1]["result"])
        for name in ("images", "classes", "splits", "bad", "duplicates"):
            assert found[0][name] == found[1][name], name
        assert len(found[0]["bad"]) == len(found[0]["duplicates"]) == 1

    @pytest.mark.parametrize(
        ("words", "status"),
        [(["check"], 2), (["check", "x"], 3), (["check", "x", "--images", "-1"], 2)],
    )
    def test_wrong_usage(self, words: list[str], status: int, capsys: Capsys) -> None:
        assert run(words) == status
        assert capsys.readouterr().err.splitlines()[-1].startswith("hint: ")

    def test_a_sample_is_even_and_said(self, tmp_path: Path, capsys: Capsys) -> None:
        photos_in(tmp_path, {"ant": 6, "bee": 6})
        assert run(["check", str(tmp_path), "--images", "4", "--json"]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])["result"]
        assert (result["images"], result["looked_at"]) == (12, 4)
        assert run(["check", str(tmp_path), "--images", "4"]) == 0
        assert "--images 0 looks at all" in " ".join(capsys.readouterr().out.split())

    @pytest.mark.parametrize(
        ("count", "images"), [(10, 0), (10, 10), (10, 3), (1000, 7), (1, 5)]
    )
    def test_samples_are_rows_each_once(self, count: int, images: int) -> None:
        rows = check._sample(count, images)
        assert len(set(rows.tolist())) == len(rows) == (min(images, count) or count)
        assert 0 <= rows.min() <= rows.max() < count

    def test_a_gpu_computes_while_images_load(self, tmp_path: Path) -> None:
        source = open_folder(photos_in(tmp_path, CLEAN))
        times = {
            kind: check._times(source, check.Rates(100.0, 50.0, 20.0), torch.device(kind), 0)
            for kind in ("cpu", "cuda")
        }
        assert times["cuda"]["features_seconds"] == pytest.approx(10 / 50)
        assert times["cpu"]["features_seconds"] == pytest.approx(10 / 50 + 10 / 100)
        assert times["cuda"]["epoch_seconds"] == pytest.approx(6 / 20 + 4 / 50)


class TestTraps:
    def test_nothing_in_clean_data(self, tmp_path: Path) -> None:
        assert findings(photos_in(tmp_path, CLEAN)) == []

    def test_no_labels(self, tmp_path: Path) -> None:
        found = the_one(photos_in(tmp_path / "a" / "b", {".": 3}))
        assert found.wrong
        assert "has no labels" in found.text
        assert "if this is one class" not in found.hint

    def test_one_level_too_deep(self, tmp_path: Path) -> None:
        photos_in(tmp_path / "data", {"ant": 3, "bee": 3})
        found = the_one(tmp_path / "data" / "ant")
        assert found.wrong
        assert found.hint.endswith(f"if this is one class among others, name {tmp_path}/data")

    def test_a_split_named_alone(self, tmp_path: Path) -> None:
        photos_in(tmp_path / "data", CLEAN)
        found = the_one(tmp_path / "data" / "train")
        assert not found.wrong
        assert found.text == "1 other split ('val') beside 'train' unused"
        assert found.hint == f"name the folder above: {tmp_path}/data"

    def test_one_level_too_high(self, tmp_path: Path) -> None:
        photos_in(tmp_path / "one", {"data/ant": 3, "data/bee": 3})
        assert any("one class only, 'data'" in text for text in wrong(tmp_path / "one"))
        (one,) = [found for found in findings(tmp_path / "one") if found.wrong]
        assert one.hint == f"name {tmp_path}/one/data"
        photos_in(tmp_path / "three", {f"data/{split}/ant": 2 for split in ("train", "val")})
        (one,) = [found for found in findings(tmp_path / "three") if found.wrong]
        assert one.hint == f"name {tmp_path}/three/data"
        photos_in(tmp_path / "two", {f"{x}/{y}": 2 for x in "pq" for y in ("ant", "bee")})
        assert wrong(tmp_path / "two") == [
            "every class folder holds 2 folders ('ant', 'bee') and no image"
        ]

    def test_splits_below_classes(self, tmp_path: Path) -> None:
        photos_in(tmp_path, {f"{x}/{y}": 2 for x in ("ant", "bee") for y in ("train", "val")})
        (found,) = [one for one in findings(tmp_path) if one.wrong]
        assert "('train', 'val')" in found.text
        assert "train/CLASS/photo.jpg" in found.hint

    def test_folders_of_their_own_below_classes_are_nobodys_mistake(
        self, tmp_path: Path
    ) -> None:
        photos_in(tmp_path, {"ant/monday": 2, "ant/tuesday": 2, "bee/garden": 2})
        assert wrong(tmp_path) == []

    def test_a_class_that_cannot_be_learnt(self, tmp_path: Path) -> None:
        photos_in(tmp_path, {**CLEAN, "val/wasp": 2})
        first, *others = findings(tmp_path)
        assert first.wrong
        assert first.text == "train has no image of 1 class ('wasp')"
        assert others == []

    def test_a_class_that_is_not_judged(self, tmp_path: Path) -> None:
        found = the_one(photos_in(tmp_path, {**CLEAN, "train/wasp": 2}))
        assert not found.wrong
        assert found.text == "val has no image of 1 class ('wasp')"

    def test_the_same_photo_in_two_splits(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        shutil.copy(tmp_path / "train/ant/photo000.jpg", tmp_path / "val/ant/other.jpg")
        found = the_one(tmp_path)
        assert found.wrong
        assert found.text == (
            "1 image in more than one split, e.g. train/ant/photo000.jpg = val/ant/other.jpg"
        )

    def test_the_same_photo_in_two_classes_or_twice_in_one(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        shutil.copy(tmp_path / "train/ant/photo000.jpg", tmp_path / "train/bee/other.jpg")
        shutil.copy(tmp_path / "train/ant/photo001.jpg", tmp_path / "train/ant/again.jpg")
        first, second = findings(tmp_path)
        assert first.wrong
        assert "1 image in more than one class" in first.text
        assert not second.wrong
        assert "1 image more than once in the same class" in second.text

    def test_bad_images(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        (tmp_path / "train/ant/x.jpg").write_bytes(b"<html>")
        found = the_one(tmp_path)
        assert not found.wrong
        assert "1 image cannot be decoded, e.g. train/ant/x.jpg: not an image but" in found.text

    def test_photos_held_sideways(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        tags = Image.Exif()
        tags[0x0112] = 6
        Image.new("RGB", (90, 70)).save(tmp_path / "train/ant/turned.jpg", exif=tags)
        found = the_one(tmp_path)
        assert not found.wrong
        assert found.text == "1 image says which way it was held (EXIF)"
        assert "--exif apply" in found.hint

    def test_a_class_of_bad_images(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        for split in ("train", "val"):
            (tmp_path / split / "wasp").mkdir()
            (tmp_path / split / "wasp" / f"{split}.jpg").write_text(split)
        assert wrong(tmp_path) == ["not one image of 1 class ('wasp') could be decoded"]

    def test_nothing_but_bad_images(self, tmp_path: Path) -> None:
        for name in ("ant/1.jpg", "ant/2.jpg", "bee/1.jpg", "bee/2.jpg"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(name)
        assert wrong(tmp_path) == ["no image can be decoded"]

    @pytest.mark.parametrize(
        ("names", "told"),
        [
            (("Daisy", "daisy"), "'Daisy' and 'daisy' differ only in case"),
            (("daisy", "daisy "), "'daisy' and 'daisy ' differ only in case, spaces"),
            (("caf\u00e9", "cafe\u0301"), r"'cafe\u0301' and 'caf\xe9' differ only in the enc"),
        ],
    )
    def test_class_names_that_read_the_same(
        self, tmp_path: Path, names: tuple[str, str], told: str
    ) -> None:
        photos_in(tmp_path, {**dict.fromkeys(names, 2), "tulip": 2, "rose": 2})
        if len(list(tmp_path.iterdir())) < 4:
            pytest.skip("this file system takes the two names for one")
        found = the_one(tmp_path)
        assert found.wrong
        assert told in found.text

    def test_letters_are_classes_in_both_cases(self, tmp_path: Path) -> None:
        photos_in(tmp_path, {"a": 2, "A": 2})
        assert findings(tmp_path) == []

    def test_one_photo_of_a_class(self, tmp_path: Path) -> None:
        found = the_one(photos_in(tmp_path, {"ant": 3, "bee": 3, "wasp": 1}))
        assert not found.wrong
        assert found.text == "1 class ('wasp') with one training image"

    @pytest.mark.parametrize(("many", "told"), [(19, False), (20, True)])
    def test_classes_of_very_different_sizes(
        self, tmp_path: Path, many: int, told: bool
    ) -> None:
        found = findings(photos_in(tmp_path, {"train/ant": many, "train/bee": 2, "val/ant": 1}))
        texts = ["'ant' has 20 training images, 'bee' has 2"] if told else []
        assert [one.text for one in found if "training images" in one.text] == texts
        assert not any(one.wrong for one in found)

    def test_tiny_images(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        for side in (63, 64):
            Image.new("RGB", (200, side)).save(tmp_path / f"train/ant/x{side}.jpg")
        found = the_one(tmp_path)
        assert not found.wrong
        assert found.text == (
            "1 image with a side below 64 pixels, e.g. train/ant/x63.jpg: 200 × 63"
        )

    def test_a_gif_among_photos(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        Image.new("RGB", (90, 90)).save(tmp_path / "train/bee/missing.gif")
        found = the_one(tmp_path)
        assert not found.wrong
        assert found.text == "1 GIF among photos, e.g. train/bee/missing.gif"

    def test_validation_images_without_labels(self, tmp_path: Path) -> None:
        photos_in(tmp_path, {"train/ant": 3, "train/bee": 3, "val": 2})
        first, *others = findings(tmp_path)
        assert first.wrong
        assert first.text == "none of the 2 images in val has a label"
        assert "devkit" in first.hint
        assert not any(one.wrong for one in others)
        (tmp_path / "val").rename(tmp_path / "test")
        assert wrong(tmp_path) == []

    def test_a_photo_in_two_splits_and_two_classes(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        shutil.copy(tmp_path / "train/ant/photo000.jpg", tmp_path / "val/bee/other.jpg")
        assert wrong(tmp_path) == [
            f"1 image in more than one {what}, e.g. train/ant/photo000.jpg = val/bee/other.jpg"
            for what in ("split", "class")
        ]

    def test_a_copy_that_may_be_held_out(self, tmp_path: Path) -> None:
        photos_in(tmp_path, {"ant": 3, "bee": 3})
        shutil.copy(tmp_path / "ant/photo000.jpg", tmp_path / "ant/other.jpg")
        found = the_one(tmp_path)
        assert not found.wrong
        assert "may be held out" in found.hint

    def test_links_in_circles_and_files_that_are_no_images(self, tmp_path: Path) -> None:
        photos_in(tmp_path, CLEAN)
        (tmp_path / "train/ant/again").symlink_to(tmp_path / "train")
        (tmp_path / "train/bee/Thumbs.db").write_bytes(b"x")
        (tmp_path / "train/bee/notes.txt").write_text("x")
        assert [(one.wrong, one.text) for one in findings(tmp_path)] == [
            (False, "2 files not named like images left out: .db 1, .txt 1"),
            (False, "1 link ('train/ant/again') to a folder above not followed"),
        ]

    def test_what_the_source_noted_is_passed_on(self, tmp_path: Path) -> None:
        photos_in(tmp_path, dict.fromkeys(("1", "2", "10"), 2))
        (tmp_path / "empty").mkdir()
        (tmp_path / ".cache").mkdir()
        told = "\n".join(finding.text for finding in findings(tmp_path))
        assert "sorted as text: 1, 10, 2" in told
        assert "1 folder ('empty') without images" in told
        assert "1 hidden file or folder left out" in told
        assert wrong(tmp_path) == []
