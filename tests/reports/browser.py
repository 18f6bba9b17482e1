"""A real browser without a network, and an accessibility engine in it, for the page's tests."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
pytest.importorskip("axe_core_python", reason="axe-core-python is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDE, NARROW = 1280, 390
SCHEMES = ("light", "dark")
SERIOUS = ("serious", "critical")


@contextlib.contextmanager
def opened_browser(profile: Path) -> Iterator[Any]:
    """A headless Chromium with a profile of its own; skips where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no Chromium with its chromedriver here (apt install chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    words = [
        *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        # Every name leads nowhere: what a page wants from a network, it does not get.
        "--host-resolver-rules=MAP * ~NOTFOUND",
        f"--user-data-dir={profile}",
    ]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--no-sandbox")
    for word in words:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        browser.execute_cdp_cmd("Network.enable", {})
        offline = {
            "offline": True,
            "latency": 0,
            "downloadThroughput": 0,
            "uploadThroughput": 0,
        }
        browser.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        yield browser
    finally:
        browser.quit()


def show(browser: Any, path: Path, *, width: int = WIDE, scheme: str = "light") -> None:
    """Opens a page from its file, and draws what is further down too."""
    wanted = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", wanted)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == NARROW}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(path.absolute().as_uri())
    browser.execute_async_script(
        """const done = arguments[0];
        const frame = () => new Promise((on) => requestAnimationFrame(() => setTimeout(on)));
        (async () => {
          for (const c of document.querySelectorAll("canvas")) {
            c.scrollIntoView();  // charts are drawn when they come near, a frame later
            await frame();
            await frame();
          }
          for (const i of document.images) i.loading = "eager";
          await Promise.all([...document.images].map((i) => i.decode().catch(() => 0)));
          scrollTo(0, 0);
          await frame();
        })().then(done, done);"""
    )


def complaints(browser: Any) -> list[str]:
    """What the console said since it was last asked."""
    return [entry["message"] for entry in browser.get_log("browser")]


def broken_images(browser: Any) -> list[str]:
    """The names of images that did not load."""
    return list(
        browser.execute_script(
            "return [...document.images].filter((i) => !i.complete || !i.naturalWidth)"
            ".map((i) => i.alt)"
        )
    )


def blank_charts(browser: Any) -> int:
    """How many canvases hold nothing but one colour."""
    return int(
        browser.execute_script(
            """return [...document.querySelectorAll("canvas")].filter((c) => {
              if (!c.width || !c.height) return true;
              const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
              return !d.some((v, i) => v !== d[i % 4]);
            }).length"""
        )
    )


def findings(browser: Any) -> list[str]:
    """What axe-core finds serious or critical, all its rules asked."""
    engine = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    browser.execute_cdp_cmd("Runtime.evaluate", {"expression": engine})
    found = browser.execute_async_script(
        "const done = arguments[0]; axe.run().then(done, (e) => done({e: String(e)}))"
    )
    assert "e" not in found, found["e"]
    return [
        f"{rule['id']}: {node['html'][:120]} {node.get('failureSummary', '')}"
        for rule in found["violations"]
        if rule["impact"] in SERIOUS
        for node in rule["nodes"][:3]
    ]


def tab_order(browser: Any, most: int = 400) -> list[tuple[float, str]]:
    """Height in the page and tag of each element that the tab key reaches, in its order."""
    press = {"key": "Tab", "code": "Tab", "windowsVirtualKeyCode": 9}
    reached: list[tuple[float, str]] = []
    for _ in range(most):
        for kind in ("rawKeyDown", "keyUp"):
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, **press})
        place = browser.execute_script(
            """const e = document.activeElement;
            if (e === document.body || e.seen) return null;
            e.seen = true;
            return [e.getBoundingClientRect().top + scrollY, e.tagName];"""
        )
        if place is None:
            break
        reached.append((float(place[0]), str(place[1])))
    return reached
