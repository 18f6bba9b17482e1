"""What becomes of each category of odd file: decoded, repaired or ledgered, and never else."""

from __future__ import annotations

import csv
import json
import re
import resource
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from alexkit.cli.app import run
from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.recipes.ledger import USED
from tests.conftest import Capsys

DECODED, REPAIRED, LEDGERED = "decoded", "repaired", "ledgered"

CATEGORIES = {
    # category in index.json: the outcomes a file of it may have, and how many files there are
    r"exif-orientation != 1": ({REPAIRED, DECODED}, 3),
    r"JPEG mode L": ({DECODED, REPAIRED, LEDGERED}, 3),
    r"JPEG mode CMYK": ({REPAIRED}, 1),
    r"JPEG2000 mode .*": ({DECODED, REPAIRED, LEDGERED}, 5),
    r"PNG mode (1|L|P)": ({DECODED, REPAIRED}, 9),
    r"PNG mode (LA|RGBA|I;16)": ({REPAIRED}, 8),
    r"GIF mode .*": ({DECODED, REPAIRED}, 6),
    r"WEBP mode RGBA": ({REPAIRED}, 3),
    r"AVIF mode RGBA": ({REPAIRED, LEDGERED}, 1),
    r"BMP mode .*": ({DECODED, REPAIRED}, 10),
    r"TIFF mode (1|L|P|PA)": ({DECODED, REPAIRED}, 10),
    r"TIFF mode (LAB|CMYK)": ({REPAIRED}, 6),
    r"TIFF mode I;16B?": ({REPAIRED}, 5),
    r"TIFF mode I": ({REPAIRED}, 2),
    r"TIFF mode F": ({LEDGERED}, 1),
    r"multi-frame .*": ({DECODED, REPAIRED}, 15),
    r"<=2px side": ({REPAIRED}, 3),
    r"huge dims >50Mpx": ({LEDGERED}, 1),
    r"cannot open: DecompressionBombError": ({LEDGERED}, 3),
    r"cannot open: .*": ({LEDGERED}, 8),
    r"opens, load fails: .*": ({LEDGERED}, 6),
    r"getexif raises .*": ({LEDGERED, DECODED}, 4),
}
"""Where several outcomes are named, it depends on the file or on the formats and leniency of
the Pillow that is installed; never on the run."""


@pytest.fixture(scope="module")
def told(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The action of the ledger of ``check`` by file name, or "" for files it does not name."""
    out = tmp_path_factory.mktemp("torture") / "bad.csv"
    status = run(["check", str(real_data / "torture"), "--out", str(out), "--quiet"])
    assert status == 3  # there are no labels
    rows = list(csv.reader(out.read_text(encoding="utf-8").splitlines()))[1:]
    actions = {path: REPAIRED if action == USED else LEDGERED for path, _, action in rows}
    names = [path.name for path in (real_data / "torture").iterdir() if path.suffix != ".json"]
    assert len(names) == 115
    return {name: actions.get(name, DECODED) for name in names}


def test_every_category_has_its_outcomes(real_data: Path, told: dict[str, str]) -> None:
    index = json.loads((real_data / "torture" / "index.json").read_text())
    files: dict[str, list[str]] = defaultdict(list)
    for name, oddities in index.items():
        for oddity in oddities:
            for pattern in CATEGORIES:
                if re.fullmatch(pattern, oddity):
                    files[pattern].append(name)
                    break
    found = {pattern: {told[name] for name in names} for pattern, names in files.items()}
    assert {p: len(names) for p, names in files.items()} == {
        p: count for p, (_, count) in CATEGORIES.items()
    }
    for pattern, (allowed, _) in CATEGORIES.items():
        assert found[pattern] <= allowed, (pattern, found[pattern])


def test_features_give_every_file_a_row_or_a_reason(
    real_data: Path, told: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    words = ["--weights", "random", "--model", "squeezenet1_1", "--layer", "flatten"]
    torture = str(real_data / "torture")
    assert run(["features", torture, *words, "--exif", "apply", "--batch-size", "16"]) == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak - before < 1_000_000  # kB
    with FeatureStore.open(Path("runs/features-001/features.h5")) as store:
        status = np.asarray(store.status)
        bad = {path for path, s in zip(store.paths, status, strict=True) if s != Status.DONE}
        assert len(store) == 115
    assert bad == {name for name, outcome in told.items() if outcome == LEDGERED}
    text = Path("runs/features-001/bad_images.csv").read_text(encoding="utf-8")
    used = {p for p, _, action in csv.reader(text.splitlines()) if action == USED}
    assert used == {name for name, outcome in told.items() if outcome == REPAIRED}


def test_strict_stops_at_the_first(real_data: Path, capsys: Capsys) -> None:
    assert run(["check", str(real_data / "torture"), "--strict"]) == 3
    assert "leave out --strict" in capsys.readouterr().err.splitlines()[-1]
