"""A feature file after it was made: told, verified, exported, read from Python, damaged."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

import alexkit
from alexkit import errors
from alexkit.cli.app import main, run
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from tests.conftest import Capsys, held_open, photos_in
from tests.recipes.conftest import Refused, ResultOf, working_in

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.fixture
def features(four_lines: Path, tmp_path: Path) -> Path:
    """A copy of the feature file of the four lines: 12 photos, fc7 and pool5."""
    return Path(shutil.copy(four_lines / "runs/features-001/features.h5", tmp_path / "F.h5"))


def edit(path: Path, name: str, row: int, value: object) -> None:
    with h5py.File(path, "r+") as file:
        file[name][row] = value


def said(capsys: Capsys) -> str:
    """What is on the screen, without the frames and breaks of its tables."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).replace("│", " ").split())


class TestInfo:
    def test_it_is_one_screen(self, features: Path, capsys: Capsys) -> None:
        assert run(["info", str(features)]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 40
        text = "\n".join(lines)
        for fact in ("12 done", "8 train, 4 val", "2 of 6 rows: cat, dog", "256 × 6 × 6"):
            assert fact in text

    def test_rows_are_csv_in_a_pipe(self, features: Path, capsys: Capsys) -> None:
        edit(features, "rows/status", 3, Status.UNREADABLE)
        edit(features, "rows/reason", 3, b'cut, "half"')
        assert run(["info", str(features), "--rows"]) == 0
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert len(rows) == 12
        assert rows[0] == {
            "path": "train/cat/photo000.jpg",
            "label": "0",
            "class": "cat",
            "split": "train",
            "status": "done",
            "reason": "",
        }
        assert rows[3]["status"] == "unreadable"
        assert rows[3]["reason"] == 'cut, "half"'

    def test_a_terminal_that_knows_only_ascii(
        self, features: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with h5py.File(features, "r+") as file:
            del file["classes"]
            file["classes"] = ["Käfer", "写真"]
        screen = io.TextIOWrapper(io.BytesIO(), "ascii")
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "argv", ["alexkit", "info", str(features), "--rows"])
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            signal.signal(signal.SIGTERM, before)
        assert ended.value.code == 0
        screen.flush()
        lines = screen.buffer.getvalue().decode("ascii").splitlines()
        assert lines[1] == "train/cat/photo000.jpg,0,K\\xe4fer,train,done,"

    def test_what_is_told_as_a_file(
        self, features: Path, tmp_path: Path, capsys: Capsys
    ) -> None:
        words = ["info", str(features), "--quiet", "--out"]
        assert run([*words, str(tmp_path / "F.json")]) == 0
        assert json.loads((tmp_path / "F.json").read_text())["layers"]["fc7"]["shape"] == [4096]
        assert run([*words, str(tmp_path / "F.csv")]) == 2
        assert "end it in .json" in capsys.readouterr().err
        assert run([*words, str(features), "--overwrite"]) == 2  # nor over what it tells of
        capsys.readouterr()
        assert run(["info", str(features), "--rows"]) == 0
        assert run([*words, str(tmp_path / "F.csv"), "--rows"]) == 0
        assert (tmp_path / "F.csv").read_text() in capsys.readouterr().out

    def test_json_has_the_rows_and_the_provenance(self, features: Path, capsys: Capsys) -> None:
        assert run(["info", str(features), "--rows", "--json"]) == 0
        (line,) = capsys.readouterr().out.splitlines()
        result = json.loads(line)["result"]
        assert result["table"][11]["class"] == "dog"
        size = {"shape": [4096], "dtype": "float32", "bytes": 12 * 4096 * 4}
        assert result["layers"]["fc7"] == size
        assert result["provenance"]["model"] == "alexnet"

    def test_an_unfinished_file_says_so(self, features: Path, capsys: Capsys) -> None:
        with h5py.File(features, "r+") as file:
            file.attrs["complete"] = False
            file["rows/status"][5:] = 0
        assert run(["info", str(features)]) == 0
        text = said(capsys)
        assert "the same command continues it" in text
        assert "7 not done, 5 done" in text

    def test_a_change_by_another_program_is_told(self, features: Path, capsys: Capsys) -> None:
        assert run(["info", str(features)]) == 0
        assert "another program" not in said(capsys)
        edit(features, "rows/label", 0, 1)
        assert run(["info", str(features)]) == 0
        assert "changed by another program since it was written" in said(capsys)

    @pytest.mark.parametrize("word", ["--rows", "--verify"])
    def test_what_has_neither_rows_nor_checks(self, word: str, four_lines: Path) -> None:
        assert run(["info", str(four_lines / "runs/train-001"), word]) == 2
        weights = four_lines / "runs/train-001/weights/best.safetensors"
        assert run(["info", str(weights), word]) == 2

    def test_where_images_are_matters_to_verify_alone(self, features: Path) -> None:
        assert run(["info", str(features), "--data", "photos"]) == 2


class TestVerify:
    def test_rows_are_extracted_again(
        self, features: Path, capsys: Capsys, result_of: ResultOf
    ) -> None:
        words = ["info", str(features), "--verify", "5", "--batch-size", "2"]
        verified = result_of(words)["verified"]
        assert verified["rows"] == 5
        assert set(verified["layers"]) == {"fc7", "pool5"}
        assert all(found["relative"] < 1e-5 for found in verified["layers"].values())
        assert run(words) == 0
        assert "5 rows extracted again" in said(capsys)

    @pytest.mark.parametrize(("layer", "column"), [("fc7", 7), ("pool5", (3, 1, 2))])
    def test_a_changed_number_is_found(
        self, layer: str, column: object, features: Path, capsys: Capsys
    ) -> None:
        with h5py.File(features, "r+") as file:
            values = file[f"features/{layer}"]
            row = values[4]
            row[column] += 0.01 * np.abs(row).max()
            values[4] = row
        assert run(["info", str(features), "--verify", "--images", "0"]) == 4
        text = said(capsys)
        assert f"'train/dog/photo000.jpg' differs in {layer} by 0.01" in text

    def test_moved_images_and_weights(
        self, features: Path, four_lines: Path, capsys: Capsys
    ) -> None:
        with h5py.File(features, "r+") as file:
            made = json.loads(file.attrs["provenance"])
            made["data"] |= {"path": "/gone/photos", "root": "/gone/photos"}
            made["weights"]["source"] = "/gone/w.pth"
            file.attrs["provenance"] = json.dumps(made)
        words = ["info", str(features), "--verify"]
        assert run(words) == 3
        assert "hint: say where they are now: --weights" in said(capsys)
        words += ["--weights", str(four_lines / "runs/train-001")]
        assert run(words) == 3
        assert "/gone/photos, which is not there any more" in said(capsys)
        assert run([*words, "--data", str(four_lines / "imagenet")]) == 0
        other = four_lines / "runs/finetune-001"
        assert run([*words[:-1], str(other), "--data", str(four_lines / "imagenet")]) == 4
        assert "hint: name the weights it was made with" in said(capsys)

    def test_photos_that_changed(
        self, features: Path, four_lines: Path, tmp_path: Path,
        capsys: Capsys,
    ) -> None:  # fmt: skip
        photos = Path(shutil.copytree(four_lines / "imagenet", tmp_path / "photos"))
        words = ["info", str(features), "--verify", "--data", str(photos)]
        (photos / "train/cat/photo000.jpg").unlink()
        Image.new("RGB", (300, 300), (9, 200, 9)).save(photos / "train/cat/photo001.jpg")
        (photos / "val/dog/photo001.jpg").write_bytes(b"no photo")
        assert run(words) == 4
        text = said(capsys)
        assert "has other images, labels or sizes" in text
        assert "'train/cat/photo000.jpg' is gone" in text
        assert "'train/cat/photo001.jpg' differs in" in text
        assert "'val/dog/photo001.jpg'" in text

    def test_random_weights_are_drawn_again(self, tmp_path: Path) -> None:
        photos_in(tmp_path / "photos", {"": 3})
        with working_in(tmp_path):
            words = ["--weights", "random", "--model", "alexnet-owt", "--seed", "3"]
            lines = ["features", "photos", *words, "--dtype", "float16", "--out", "F.h5"]
            assert run(lines) == 0
            assert run(["info", "F.h5", "--verify"]) == 0

    def test_a_provenance_that_was_edited(self, features: Path) -> None:
        for missing in ("fingerprint", "weights", "data"):
            with h5py.File(features, "r+") as file:
                made = json.loads(file.attrs["provenance"])
                made[missing] = None
                file.attrs["provenance"] = json.dumps(made)
            assert run(["info", str(features)]) == 0
            assert run(["info", str(features), "--verify"]) == 4


class TestExport:
    def test_npz_holds_what_the_file_holds(self, features: Path) -> None:
        edit(features, "rows/status", 3, Status.UNREADABLE)
        edit(features, "rows/reason", 3, b"cut")
        edit(features, "features/fc7", 3, np.nan)
        assert run(["export", str(features)]) == 0
        with FeatureStore.open(features) as store, np.load(features.with_suffix(".npz")) as npz:
            good = npz["status"] == 1
            for layer in store.layers:
                assert npz[layer].dtype == np.float32
                flat = npz[layer][good].reshape(int(good.sum()), -1)
                np.testing.assert_array_equal(flat, store.matrix(layer))
            assert np.isnan(npz["fc7"][3]).all()
            assert tuple(npz["path"]) == store.paths
            assert tuple(npz["classes"]) == store.classes
            np.testing.assert_array_equal(npz["label"], store.labels)
            assert npz["split"].tolist() == ["train"] * 8 + ["val"] * 4
            assert json.loads(str(npz["provenance"])) == store.provenance

    def test_one_layer_and_blocks(
        self, features: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("alexkit.recipes.export.BLOCK_BYTES", 5 * 4096 * 4)
        out = features.parent / "new" / "fc7.npz"
        assert run(["export", str(features), "--layer", "fc7", "--out", str(out)]) == 0
        with FeatureStore.open(features) as store, np.load(out) as npz:
            np.testing.assert_array_equal(npz["fc7"], store.matrix("fc7"))
            assert "pool5" not in npz.files
        assert sorted(p.name for p in out.parent.iterdir()) == ["fc7.npz"]

    def test_csv_is_the_table_of_rows(self, features: Path, capsys: Capsys) -> None:
        out = features.with_suffix(".csv")
        assert run(["export", str(features), "--out", str(out)]) == 0
        capsys.readouterr()
        assert run(["info", str(features), "--rows"]) == 0
        assert out.read_text(encoding="utf-8") == capsys.readouterr().out

    def test_a_features_run_is_its_file(self, four_lines: Path, tmp_path: Path) -> None:
        out = str(tmp_path / "x.csv")
        assert run(["export", str(four_lines / "runs/features-001"), "--out", out]) == 0
        assert run(["export", str(four_lines / "runs/train-001"), "--out", out]) == 2
        assert run(["export", str(four_lines / "imagenet"), "--out", out]) == 2

    def test_nothing_is_replaced_unasked(self, features: Path) -> None:
        out = features.with_suffix(".npz")
        out.write_text("mine")
        words = ["export", str(features), "--out", str(out)]
        assert run(words) == 2
        assert out.read_text() == "mine"
        assert run([*words, "--overwrite"]) == 0
        assert zipfile.is_zipfile(out)
        disguised = features.rename(features.with_name("features.npz"))
        assert run(["export", str(disguised), "--overwrite"]) == 2
        FeatureStore.open(disguised).close()

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            (["--out", "F.mat"], "h5read"),
            (["--out", "F.txt"], ".npz or .csv"),
            (["--out", "F"], ".npz or .csv"),
            (["--out", "F.csv", "--layer", "fc7"], "export the features to .npz"),
            (["--layer", "fc9"], "did you mean fc7?"),
        ],
    )
    def test_wrong_usage(
        self, words: list[str], hint: str, features: Path, capsys: Capsys
    ) -> None:
        with working_in(features.parent):
            assert run(["export", "F.h5", *words]) == 2
        assert hint in said(capsys)
        assert [p.name for p in features.parent.iterdir()] == ["F.h5"]

    def test_a_full_disk_keeps_nothing(
        self, features: Path, small_disk: Path, capsys: Capsys
    ) -> None:
        old = small_disk / "old.npz"
        old.write_text("mine")
        room = 12 * 4096 * 4 + 4096  # for fc7, but not for the tables beside it
        free = shutil.disk_usage(small_disk).free
        (small_disk / "filler").write_bytes(bytes(free - room))
        words = ["export", str(features), "--out", str(old), "--overwrite"]
        assert run(words) == 5
        assert "old.npz needs 639.0 kB, and 200.7 kB are free" in said(capsys)
        assert run([*words, "--layer", "fc7"]) == 5
        assert "cannot be written: No space left on device" in said(capsys)
        (small_disk / "more").write_bytes(bytes(room))
        assert run(["export", str(features), "--out", str(small_disk / "rows.csv")]) == 5
        assert "cannot be written: No space left on device" in said(capsys)
        assert old.read_text() == "mine"
        assert sorted(p.name for p in small_disk.iterdir()) == ["filler", "more", "old.npz"]


@contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so for a while this process is not root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def edited(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            change(file)

    return damage


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = [1, 2]


def locked_away(path: Path) -> None:
    path.chmod(0)


CASES: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 2), 4, "is truncated"),
    "empty": (lambda path: os.truncate(path, 0), 4, "is "),
    "another HDF5": (foreign, 4, "is HDF5, but no feature file of alexkit"),
    "no HDF5": (lambda path: path.write_text("features of mine\n" * 100), 4, "is no HDF5 file"),
    "edited": (edited(lambda file: file.pop("rows/label")), 4, "is damaged"),
    "of a newer format": (
        edited(lambda file: file.attrs.__setitem__("format_version", 2)),
        4,
        "has format version 2",
    ),
    "gone": (Path.unlink, 3, "there is no "),
    "not ours to read": (locked_away, 3, "ermission denied"),
}


class TestBadFiles:
    @pytest.mark.parametrize("case", CASES)
    def test_each_has_its_line_and_status_everywhere(
        self, case: str, features: Path, refused: Refused
    ) -> None:
        damage, status, text = CASES[case]
        damage(features)
        with working_in(features.parent):
            os.chmod(".", 0o777)  # what leads here is closed to others, but we are here
            with as_nobody() if damage is locked_away else nullcontext():
                for words in (
                    ["info", "F.h5"],
                    ["info", "F.h5", "--verify"],
                    ["export", "F.h5", "--out", "X.npz"],
                    ["eval", "F.h5", "--out", "E"],
                ):
                    refused(words, status, text)
                with pytest.raises(errors.AlexkitError) as raised:
                    FeatureStore.open("F.h5")
                assert raised.value.exit_status == status
        assert not (features.parent / "X.npz").exists()
        assert not (features.parent / "X.npz.partial").exists()

    def test_a_row_called_done_that_is_not(self, features: Path) -> None:
        edit(features, "features/fc7", 2, np.nan)
        with working_in(features.parent):
            assert run(["export", "F.h5", "--out", "X.npz"]) == 4
            assert run(["eval", "F.h5"]) == 4
            assert run(["info", "F.h5", "--verify", "--images", "0"]) == 4
            assert not Path("X.npz").exists()

    def test_in_use_by_another_process(self, features: Path, capsys: Capsys) -> None:
        with held_open(features):
            for words in (["info"], ["export"], ["eval"]):
                assert run([*words, str(features)]) == 2
                assert "is in use by another process" in said(capsys)
        assert run(["info", str(features)]) == 0

    def test_a_read_only_folder(self, features: Path) -> None:
        features.parent.chmod(0o555)
        with working_in(features.parent), as_nobody():
            assert run(["info", "F.h5"]) == 0
            assert run(["export", "F.h5"]) == 5


class TestFromPython:
    def test_the_readme_says_what_works(self, four_lines: Path, capsys: Capsys) -> None:
        text = README.read_text(encoding="utf-8")
        (block,) = [
            part.split("```")[0] for part in text.split("```python\n")[1:] if "extract(" in part
        ]
        photos_in(four_lines / "photos", {"train/ant": 2, "train/bee": 2, "val/ant": 1})
        with working_in(four_lines):
            exec("\n".join(line[2:] for line in block.splitlines()), {})
            assert capsys.readouterr().out.splitlines()[0] == (
                "(4, 4096) (4,) ('ant', 'bee') train/ant/photo000.jpg"
            )
            with pytest.raises(errors.OutputExists):
                alexkit.extract("photos/", out="photos.h5")
        Path(four_lines / "photos.h5").unlink()
        shutil.rmtree(four_lines / "photos")

    def test_words_are_taken_and_checked(self, tmp_path: Path) -> None:
        photos_in(tmp_path / "photos", {"": 2})
        settings = {"weights": "random", "model": "alexnet-owt", "dtype": "float16"}
        out = str(tmp_path / "F.h5")
        with alexkit.extract(str(tmp_path / "photos"), "pool5", out=out, **settings) as store:
            assert list(store.layers) == ["pool5"]
            assert store.dtype == np.float16
        with pytest.raises(errors.UnknownName, match="no option 'batchsize'"):
            alexkit.extract("photos", batchsize=3)
        with pytest.raises(errors.UnknownName, match="no dtype 'int8'"):
            alexkit.extract("photos", dtype="int8")
        with pytest.raises(errors.UsageError, match="--batch-size 0 is too small"):
            alexkit.extract("photos", batch_size=0)
        with pytest.raises(errors.DataError):
            alexkit.extract(tmp_path / "nothing")
