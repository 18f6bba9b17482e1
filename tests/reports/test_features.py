"""A feature file in words."""

from __future__ import annotations

from typing import Any

from alexkit.reports.features import feature_blocks

RECORD: dict[str, Any] = {
    "file": "F.h5",
    "bytes": 1_234_567,
    "complete": True,
    "sealed": True,
    "rows": 1200,
    "parts": [],
    "status": {"done": 1198, "unreadable": 2},
    "splits": {"train": 1000, "val": 150, "": 50},
    "labelled": 1150,
    "classes": {f"class{i}": 10 + i for i in range(20)},
    "layers": {"conv5": {"shape": [256, 13, 13], "dtype": "float16", "bytes": 103_833_600}},
    "provenance": {
        "fingerprint": {"data": "77" * 32},
        "model": "alexnet",
        "weights": {"source": "w.pth", "sha256": "a1b2" * 16},
        "data": {"root": "/photos", "kind": "folder"},
        "preprocessing": {"crop": 224, "mean": [0.485, 0.456, 0.406], "exif": False},
        "command_line": ["features", "my photos"],
        "views": "ten",
        "started": "2012-12-03T10:00:00.500000+00:00",
        "ended": "2012-12-03T10:20:00.500000+00:00",
    },
}


def facts(record: dict[str, Any], title: str) -> dict[str, str]:
    return dict(feature_blocks(record)[title][1])


def test_what_the_file_holds() -> None:
    assert facts(RECORD, "F.h5") == {
        "size": "1.2 MB, finished",
        "rows": "1,198 done, 2 unreadable",
        "splits": "1,000 train, 150 val, 50 none",
        "classes": "20 of 10 to 29 rows: class0, class1, class2, class3, class4, class5,"
        " class6, class7, …",
        "labelled": "1,150 rows",
    }
    assert feature_blocks(RECORD)["layers"][1] == [
        ["conv5", "256 × 13 × 13", "float16", "103.8 MB"]
    ]


def test_how_it_was_made_and_what_is_not_known_here() -> None:
    assert facts(RECORD, "made with") == {
        "network": "alexnet",
        "weights": "w.pth (a1b2a1b2a1b2)",
        "data": "/photos, folder (777777777777)",
        "command": "alexkit features 'my photos'",
        "preprocessing": "crop 224, mean 0.485 0.456 0.406, exif no",
        "views": "ten",
        "made": "2012-12-03 10:00:00 UTC, in 20 min",
    }


def test_a_bare_file() -> None:
    bare = {"splits": {"": 1200}, "classes": {}, "labelled": 0, "complete": False}
    assert facts(RECORD | bare, "F.h5") == {
        "size": "1.2 MB, the same command continues it",
        "rows": "1,198 done, 2 unreadable",
        "splits": "none",
        "classes": "none",
        "labelled": "0 rows",
    }
    assert facts(RECORD | {"provenance": {"started": "long ago"}}, "made with") == {
        "made": "long ago"
    }


def test_what_was_verified() -> None:
    verified = {
        "rows": 20,
        "tolerance": 0.001,
        "layers": {"fc7": {"absolute": 0.000012, "relative": 0.0000003}},
    }
    told = facts(RECORD | {"verified": verified}, "F.h5")["verified"]
    assert told == (
        "20 rows extracted again, equal within 0.001 of each one's largest value;"
        " largest difference: fc7 1.2e-05 (3.0e-07)"
    )


def test_what_another_program_changed_is_said() -> None:
    assert "changed" not in facts(RECORD, "F.h5")
    assert facts(RECORD | {"sealed": False}, "F.h5")["changed"].startswith("by another")


def test_rows_in_parts_are_said() -> None:
    told = facts(RECORD | {"parts": ["F.h5.part0", "F.h5.part1"]}, "F.h5")["parts"]
    assert told == "its rows are in F.h5.part0, F.h5.part1, beside it"
