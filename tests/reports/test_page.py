"""A page is one file that holds everything, escapes everything, and names what it may run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest

from alexkit.reports.fit_page import FitFacts, fit_page
from alexkit.reports.page import (
    ASSETS,
    Chart,
    Grid,
    Page,
    Section,
    Series,
    Words,
    facts,
    numeric,
    render,
    shown,
    write_page,
)
from tests.reports.samples import BITING, CLASSES, eval_sample, fit_sample, record

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def test_nothing_is_fetched_from_anywhere() -> None:
    html = render(fit_sample(list(CLASSES), list(BITING)))
    for name in re.findall(r"""(?:src|href)=["']?([^"'> ]+)""", SCRIPT.sub("", html)):
        assert name.startswith(("data:", "#", "x")), name  # x is the name that bites
    assert "@import" not in html
    assert "url(" not in (ASSETS / "page.css").read_text()


def test_a_head_that_was_solved_has_no_epochs_and_says_where_the_time_went() -> None:
    told = record("finetune", list(CLASSES))
    told["result"] |= {
        "epochs": 0, "best_epoch": 0, "seconds": 90.0, "frozen_part_seconds": 66.0,
        "top1": 0.85, "std": 0.021, "folds": [0.83, 0.87],
    }  # fmt: skip
    html = render(fit_page(FitFacts("runs/finetune-001", told, [], [])))
    for words in ("85.0 ± 2.1 %", "fitted at once", "of it the frozen part", "66 s"):
        assert words in html
    assert "0 of 0" not in html
    told |= {"state": "running", "result": None}
    assert "No epoch was finished yet" in render(fit_page(FitFacts("r", told, [], [])))


def test_the_policy_names_the_scripts_by_their_hashes() -> None:
    html = render(fit_sample(list(CLASSES), list(BITING)))
    scripts = SCRIPT.findall(html)
    assert len(scripts) == 2
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', html)
    policy = policy.replace("&#39;", "'")
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert policy.startswith("default-src 'none';")


@pytest.mark.parametrize("sample", ["fit", "eval"])
def test_a_name_never_becomes_markup(sample: str) -> None:
    page = (
        fit_sample(list(CLASSES), list(BITING))
        if sample == "fit"
        else eval_sample(list(CLASSES), list(BITING), ("conv1", "fc7"))
    )
    html = render(page)
    assert "<script>document" not in html
    assert "<img src=x" not in html
    assert "<b>bold" not in html
    assert "49.jpg" not in html


def test_data_of_charts_is_json_that_ends_no_script() -> None:
    series = Series("</script><script>x\u2028", [0.0, 1.0], [0.5, float("nan")])
    chart = Chart("t", "x", "y", [series], (["x"], [["1"]]))
    html = render(Page("t", "", [], [Section("s", [chart])]))
    (text,) = re.findall(
        r'<script type="application/json"[^>]*>(.*?)</script>', html, re.DOTALL
    )
    told = json.loads(text)
    assert told["series"][0]["name"] == r"</script><script>x\u2028"
    assert told["series"][0]["points"] == [[0.0, 0.5], [1.0, None]]


def test_what_has_no_form_is_shown_as_an_escape() -> None:
    assert shown("a\nb\x00c\u202e") == r"a\nb\x00c\u202e"
    assert shown("caf\udce9") == r"caf\xe9"
    assert shown("👩‍🔬 花 é") == "👩‍🔬 花 é"


def test_columns_of_numbers_stand_right() -> None:
    table = (
        ["name", "n", "share", "of", "mixed"],
        [["a", "1,000", "83.8 ± 5.0 %", "–", "3 of 4"], ["b", "2", "–", "1e-05", "none"]],
    )
    assert numeric(table) == [False, True, True, True, False]
    assert not any(numeric(facts({"a": 1}, "").table))


def test_empty_sections_are_left_out_and_the_file_is_whole(tmp_path: Path) -> None:
    sections = [
        Section("Empty", []),
        Section("Full", [Words("w"), Grid((["a"], [["1"]]), "c")]),
    ]
    path = tmp_path / "report.html"
    write_page(Page("t", "", [], sections), path)
    html = path.read_text()
    assert "Empty" not in html
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert html.rstrip().endswith("</html>")


def test_on_a_full_disk_the_older_page_stays_and_nothing_else(small_disk: Path) -> None:
    path = small_disk / "report.html"
    write_page(Page("older", "", [], []), path)
    long = Section("s", [Words("w" * 2**21)])
    with pytest.raises(OSError, match="No space left"):
        write_page(Page("newer", "", [], [long]), path)
    assert "older" in path.read_text()
    assert [p.name for p in small_disk.iterdir()] == ["report.html"]
