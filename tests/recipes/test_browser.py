"""Each page in a real Chromium, from its file, with no network: it works, and for everyone."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexkit.cli.app import run
from alexkit.reports.page import write_page
from tests.recipes.conftest import working_in
from tests.reports.browser import (
    NARROW,
    SCHEMES,
    WIDE,
    blank_charts,
    broken_images,
    complaints,
    findings,
    opened_browser,
    show,
    tab_order,
)
from tests.reports.samples import BITING, CLASSES, eval_sample, fit_sample, imagenet_like

PAGES = ("train", "finetune", "features", "eval", "compared", "biting-fit", "biting-eval")
MEGABYTE = 1e6


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(four_lines: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages that the four commands wrote, one of several runs, and two with odd names."""
    folder = tmp_path_factory.mktemp("pages")
    runs = four_lines / "runs"
    found = {name: runs / f"{name}-001" / "report.html" for name in PAGES[:4]}
    found |= {name: folder / f"{name}.html" for name in PAGES[4:]}
    with working_in(four_lines):
        several = [f"runs/{name}-001" for name in PAGES[:4]]
        assert run(["report", *several, "--out", str(found["compared"])]) == 0
    write_page(fit_sample(list(CLASSES), list(BITING) * 3), found["biting-fit"])
    layers = ("conv1", "conv5", "fc7")
    write_page(eval_sample(list(CLASSES), list(BITING), layers), found["biting-eval"])
    return found


@pytest.mark.parametrize("name", PAGES)
def test_a_page_works_and_is_for_everyone(
    name: str, pages: dict[str, Path], browser: Any
) -> None:
    path = pages[name]
    assert path.stat().st_size < 5 * MEGABYTE
    for scheme, width in itertools.product(SCHEMES, (WIDE, NARROW)):
        show(browser, path, width=width, scheme=scheme)
        assert complaints(browser) == []
        assert broken_images(browser) == []
        assert blank_charts(browser) == 0
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        if (scheme, width) in (("light", WIDE), ("dark", NARROW)):  # seconds each
            assert findings(browser) == []


@pytest.mark.parametrize("name", PAGES)
def test_the_tab_key_goes_down_the_page(
    name: str, pages: dict[str, Path], browser: Any
) -> None:
    show(browser, pages[name])
    order = tab_order(browser)
    tags = [tag for _, tag in order]
    assert tags[0] == "A"  # the link past the head of the page
    assert len(order) > 10
    heights = [top for top, _ in order[1:]]
    assert all(a <= b + 1 for a, b in itertools.pairwise(heights)), order
    headings = browser.execute_script(
        "return [...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])"
    )
    assert headings[0] == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(headings))


@pytest.mark.parametrize("name", ["biting-fit", "biting-eval"])
def test_names_are_shown_and_never_run(name: str, pages: dict[str, Path], browser: Any) -> None:
    show(browser, pages[name])
    assert browser.title in ('train: runs/it\'s "quoted".jpg', "eval: eval-001")
    assert browser.execute_script("return document.scripts.length") == (
        browser.execute_script("return document.querySelectorAll('[data-from]').length") + 2
    )
    text = browser.execute_script("return document.body.textContent")
    for shown in (
        'it\'s "quoted".jpg',
        "<script>document.title='run'</script>.jpg",
        "<img src=x onerror=\"document.title='run'\">.jpg",
        r"two\nlines\tand a tab.jpg",
        "👩‍🔬😀 ünï 花.jpg",
        r"not utf-8 \xff.jpg",
        "&amp; {{ 7*7 }} ${7*7}.jpg",
        r"right \u202egpj.exe",
        "a <b>bold</b> class",
    ):
        assert shown in text, shown


def test_what_a_page_would_run_besides_is_refused(tmp_path: Path, browser: Any) -> None:
    """Should a name ever get past the escaping, the page's policy still stops it."""
    path = tmp_path / "report.html"
    write_page(fit_sample(list(CLASSES), list(BITING)), path)
    html = path.read_text()
    path.write_text(html.replace("</main>", "<script>document.title='run'</script></main>"))
    show(browser, path)
    assert browser.title != "run"
    assert any("Content Security Policy" in told for told in complaints(browser))


def test_the_arrow_keys_go_through_the_images_of_a_map(
    pages: dict[str, Path], browser: Any
) -> None:
    show(browser, pages["features"])
    canvas = browser.find_element("css selector", ".canvas.dots canvas")
    told = browser.find_element("css selector", ".told")
    seen = []
    for _ in range(3):
        canvas.send_keys("\ue014")  # the right arrow
        seen.append(told.text)
        tip = browser.find_element("css selector", ".tip")
        assert tip.is_displayed()
        assert tip.text.split("\n")[0] in told.text
    assert len(set(seen)) == 3
    assert all(re.search(r"photo\d+\.jpg, (cat|dog)", text) for text in seen)


def test_a_table_sorts_by_any_column(pages: dict[str, Path], browser: Any) -> None:
    show(browser, pages["biting-fit"])
    script = """const t = [...document.querySelectorAll("table.sortable")]
      .find((t) => t.caption.textContent.startsWith("Accuracy of each class"));
      const b = [...t.querySelectorAll("button")].find((b) => b.textContent === "right");
      b.click(); if (arguments[0]) b.click();
      return [...t.tBodies[0].rows].map((r) => parseFloat(r.cells[3].textContent))"""
    up = browser.execute_script(script, False)
    assert up == sorted(up)
    down = browser.execute_script(script, False)
    assert down == sorted(up, reverse=True)


@pytest.mark.parametrize("kind", ["fit", "eval"])
def test_a_page_of_imagenets_size(kind: str, tmp_path: Path, browser: Any) -> None:
    path = tmp_path / "report.html"
    write_page(imagenet_like(kind), path)
    assert path.stat().st_size < 8 * MEGABYTE
    show(browser, path)
    assert complaints(browser) == []
    assert broken_images(browser) == []
    assert blank_charts(browser) == 0
