"""``alexkit report``: pages, plots and figures of runs that were made, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alexkit.cli.app import run
from alexkit.features.store import FeatureStore
from alexkit.recipes.looking import candidates, draw_queries, sampled, spread_out
from alexkit.recipes.pages import BRIEF
from alexkit.recipes.reporting import REPORT, report_at_the_end
from tests.conftest import Capsys
from tests.recipes.conftest import Refused, ResultOf, working_in


@pytest.fixture
def runs(four_lines: Path, tmp_path: Path) -> Path:
    """A copy of the four runs, without the weights that no page reads."""
    leave = shutil.ignore_patterns("*.safetensors", "lock")
    shutil.copytree(four_lines / "runs", tmp_path / "runs", ignore=leave)
    return tmp_path / "runs"


def test_every_run_has_its_page(four_lines: Path) -> None:
    for name in ("train", "features", "finetune", "eval"):
        html = (four_lines / "runs" / f"{name}-001" / REPORT).read_text()
        assert f"<title>{name}: {name}-001</title>" in html
        assert "data:image/jpeg;base64," in html or "Every held-out image was right" in html
        assert "There are no thumbnails" not in html


def test_a_page_is_made_again_with_its_plots(
    four_lines: Path, runs: Path, result_of: ResultOf
) -> None:
    for name in ("features", "eval", "train"):
        folder = runs / f"{name}-001"
        (folder / REPORT).unlink()
        with working_in(four_lines):
            files = result_of(["report", str(folder)])["files"]
        assert files[0] == str(folder / REPORT)
        kinds = {Path(file).suffix for file in files[1:]}
        assert kinds == {".png", ".svg"}
        assert all(Path(file).stat().st_size > 1000 for file in files)


def test_several_runs_side_by_side(four_lines: Path, runs: Path) -> None:
    other = runs / "train-002"
    shutil.copytree(runs / "train-001", other)
    record = json.loads((other / "run.json").read_text())
    record["options"]["lr"] = 0.125
    record["result"]["top1"] = 0.123
    (other / "run.json").write_text(json.dumps(record))
    with working_in(runs.parent):
        assert run(["report", "runs/train-001", "runs/train-002", "runs/eval-001"]) == 0
        assert run(["report", "runs/train-001", "runs/train-002"]) == 0
    html = (runs / "report-001.html").read_text()
    assert (runs / "report-002.html").is_file()
    for told in (
        "--lr",
        "0.125",
        "12.3 %",
        "runs/train-002",
        "runs/eval-001",
        "one fingerprint",
    ):
        assert told in html, told


def test_kernels_of_the_two_towers(four_lines: Path, tmp_path: Path, capsys: Capsys) -> None:
    with working_in(four_lines):
        out = tmp_path / "k.svg"
        assert run(["report", "runs/train-001", "--figure", "kernels", "--out", str(out)]) == 0
    assert "96 kernels of alexnet, 2 block(s)" in capsys.readouterr().err
    assert out.read_text().rstrip().endswith("</svg>")


def test_neighbours_as_the_paper_shows_them(four_lines: Path, tmp_path: Path) -> None:
    with working_in(four_lines):
        out = tmp_path / "n.png"
        words = ["report", "runs/features-001", "--figure", "neighbours", "--out", str(out)]
        assert run(words) == 0
    assert out.read_bytes().startswith(b"\x89PNG")
    with FeatureStore.open(four_lines / "runs" / "features-001" / "features.h5") as store:
        queries = draw_queries(store, store.rows(), 0)
        held_out = store.rows("val")
        assert set(queries) <= set(held_out)
        assert set(store.labels[queries[:2]]) == {0, 1}
        assert set(candidates(store, queries, store.rows())) == set(store.rows("train"))
        some = spread_out(store.rows(), store, "fc7", BRIEF)
        assert (sampled(store, "fc7", some) == store.values("fc7", some)).all()


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["no-such"], 3, "there is no no-such"),
        (["imagenet"], 4, "run.json"),
        (["runs/train-001", "runs/train-001"], 2, "named twice"),
        (["runs/train-001", "--out", "page.pdf"], 2, "end it in .html"),
        (["runs/train-001", "--figure", "kernels", "--out", "k.jpg"], 2, ".png or .svg"),
        (["runs/features-001", "--layer", "fc9"], 2, "fc9"),
        (["runs/train-001/weights/best.safetensors"], 2, "--figure kernels"),
        (["runs/train-001", "runs/eval-001", "--figure", "kernels"], 2, "of one run"),
    ],
)
def test_what_is_refused(
    words: list[str], status: int, told: str, four_lines: Path, refused: Refused
) -> None:
    with working_in(four_lines):
        refused(["report", *words], status, told)


def test_damaged_files_of_a_run_are_told(runs: Path, capsys: Capsys) -> None:
    (runs / "train-001" / "metrics.csv").write_text("epoch,loss\n1,x\n")
    (runs / "eval-001" / "eval.json").write_text('{"results": [')
    for name in ("train", "eval"):
        assert run(["report", str(runs / f"{name}-001")]) == 4
        assert "error: " in capsys.readouterr().err


def test_a_page_that_fails_costs_no_run(runs: Path) -> None:
    heard: list[object] = []
    (runs / "train-001" / "predictions.csv").write_bytes(b"\xff\x00")
    report_at_the_end(runs / "train-001", heard.append)
    assert len(heard) == 1
    assert "could not be written" in str(heard[0])
    report_at_the_end(runs / "no-such", heard.append)
    assert len(heard) == 2


def test_photos_that_are_gone_are_said(runs: Path, tmp_path: Path) -> None:
    record = json.loads((runs / "train-001" / "run.json").read_text())
    record["data"]["path"] = str(tmp_path / "moved")
    (runs / "train-001" / "run.json").write_text(json.dumps(record))
    assert run(["report", str(runs / "train-001")]) == 0
    assert "There are no thumbnails: there is no" in (runs / "train-001" / REPORT).read_text()
