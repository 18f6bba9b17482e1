"""Texts as HDF5 can hold them, and the table of rows."""

from __future__ import annotations

import json
import os

import h5py
import numpy as np
import pytest

from alexkit.choices import FeatureDtype, Split
from alexkit.features.layout import (
    REASON_BYTES,
    Plan,
    RowTable,
    not_finite,
    provenance_text,
    stored_reason,
    text_type,
)
from alexkit.features.store import FeatureStore
from alexkit.images.source import ImageRecord, stored_text
from tests.features.conftest import Example


class ThreeImages:
    """A source without files."""

    kind = "test"
    root = "/"
    classes = ("a", "b")
    labels = np.array([0, 1, -1], np.int32)
    splits = np.array([1, 2, 0], np.uint8)
    notes = ()

    def __len__(self) -> int:
        return 3

    def record(self, row: int) -> ImageRecord:
        return ImageRecord(f"{row}.jpg", int(self.labels[row]), Split.NONE)

    def read(self, row: int) -> bytes:
        return b""

    def fingerprint(self) -> str:
        return ""


def test_rows_of_a_source() -> None:
    provenance = {"fingerprint": {}}
    plan = Plan.of(ThreeImages(), {"fc7": (2,)}, FeatureDtype.FLOAT32, provenance)
    table = plan.rows
    assert table.paths == ("0.jpg", "1.jpg", "2.jpg")
    assert table.labels.tolist() == [0, 1, -1]
    assert table.splits.tolist() == [1, 2, 0]


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("größer/写真.jpg", "größer/写真.jpg"),
        (os.fsdecode(b"caf\xe9.jpg"), "caf\\udce9.jpg"),
        ("a\0b", "a\\x00b"),
        ("\ud83d", "\\ud83d"),
    ],
)
def test_text_that_is_not_utf8_becomes_text_that_is(text: str, stored: str) -> None:
    assert stored_text(text) == stored


def test_odd_paths_classes_and_reasons_do_not_stop_the_writing(example: Example) -> None:
    odd = os.fsdecode(b"caf\xe9\xff/\x01\n.jpg")
    rows = RowTable((odd, "写真.jpg"), np.array([0, 1], np.int32), np.array([0, 0], np.uint8))
    settings = {
        "rows": rows,
        "classes": (odd, "b\0"),
        "layers": {"fc7": (2,)},
        "provenance": {"data": odd, "fingerprint": {"root": odd}},
    }
    with example.create(**settings) as writer:
        writer.mark(0, example.bad[3][0], odd + "\0" + 300 * "é")
    with example.create(**settings) as writer:  # it is found to be the same
        assert writer.pending().tolist() == [1]
        writer.append(np.array([1]), {"fc7": np.ones((1, 2), np.float32)})
        writer.finish()
    with FeatureStore.open(example.path) as store:
        assert store.paths == ("caf\\udce9\\udcff/\x01\n.jpg", "写真.jpg")
        assert store.classes == (store.paths[0], "b\\x00")
        assert store.provenance["data"] == odd
        assert store.reasons[0].startswith(store.paths[0] + "\\x00\\xe9")


def test_a_reason_is_plain_ascii_and_cut() -> None:
    assert stored_reason(REASON_BYTES * "a" + "b") == REASON_BYTES * b"a"
    assert stored_reason("größer") == b"gr\\xf6\\xdfer"


def test_plain_text_gets_a_type_that_every_reader_knows() -> None:
    def told(*texts: str) -> tuple[str, int | None]:
        info = h5py.check_string_dtype(text_type([text.encode() for text in texts]))
        return info.encoding, info.length

    assert told("a.jpg", "bc/d.jpg") == ("ascii", 8)
    assert told("a.jpg", "größer.jpg") == ("utf-8", None)
    assert told("a.jpg", "b" * 300) == ("ascii", None)
    assert told("", "") == told() == ("ascii", 1)


def test_the_reason_names_the_layer_and_the_number() -> None:
    half = np.dtype("<f2")
    assert not_finite("fc6", 70123.0, half) == "fc6 reaches 70123, more than float16 can hold"
    assert not_finite("fc6", float("nan"), half) == "fc6 holds nan"


def test_provenance_is_plain_ascii() -> None:
    text = provenance_text({"root": "größer"})
    assert text.isascii()
    assert json.loads(text) == {"root": "größer"}
