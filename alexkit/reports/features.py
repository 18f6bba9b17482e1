"""A feature file in words: its one screen, and its rows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from alexkit.features.layout import Status
from alexkit.features.store import FeatureStore
from alexkit.images.source import SPLITS
from alexkit.reports.tables import Table, duration, facts_table, size

STATUS_WORDS = {
    Status.TODO: "not done",
    Status.DONE: "done",
    Status.UNREADABLE: "unreadable",
    Status.NON_FINITE: "non-finite",
}
ROW_COLUMNS = ("path", "label", "class", "split", "status", "reason")

SHOWN_CLASSES = 8
SHORT_HASH = 12


def row_records(store: FeatureStore) -> Iterator[dict[str, Any]]:
    """Every row by the names of :data:`ROW_COLUMNS`; label -1 and class "" are none."""
    for row, path in enumerate(store.paths):
        yield {
            "path": path,
            "label": int(store.labels[row]),
            "class": store.class_of(row),
            "split": SPLITS[store.splits[row]].value,
            "status": STATUS_WORDS[Status(store.status[row])],
            "reason": store.reasons.get(row, ""),
        }


def feature_record(store: FeatureStore) -> dict[str, Any]:
    """What a feature file holds and how it was made, as JSON-safe values."""
    status = {w: int((store.status == s).sum()) for s, w in STATUS_WORDS.items()}
    splits = {s.value: int((store.splits == code).sum()) for code, s in enumerate(SPLITS)}
    labelled = store.labels[store.labels >= 0]
    counts = np.bincount(labelled, minlength=len(store.classes)).tolist()
    return {
        "file": str(store.path),
        "bytes": sum(path.stat().st_size for path in (store.path, *store.parts)),
        "parts": [part.name for part in store.parts],
        "complete": store.complete,
        "sealed": store.sealed,
        "rows": len(store),
        "status": {word: count for word, count in status.items() if count},
        "splits": {name: count for name, count in splits.items() if count},
        "labelled": len(labelled),
        "classes": dict(zip(store.classes, counts, strict=True)),
        "layers": {
            name: {
                "shape": list(shape),
                "dtype": store.dtype.name,
                "bytes": store.nbytes(name),
            }
            for name, shape in store.layers.items()
        },
        "provenance": store.provenance,
    }


def feature_blocks(record: Mapping[str, Any]) -> dict[str, Table]:
    """The screen of :func:`feature_record`: title -> table."""
    finished = "finished" if record["complete"] else "the same command continues it"
    splits = {name or "none": count for name, count in record["splits"].items()}
    head = {
        "size": f"{size(record['bytes'])}, {finished}",
        "rows": _counted(record["status"]),
        "splits": "none" if list(splits) == ["none"] else _counted(splits),
        "classes": _classes(record["classes"]),
    }
    if record["parts"]:
        head["parts"] = f"its rows are in {', '.join(record['parts'])}, beside it"
    if record["complete"] and not record["sealed"]:
        head["changed"] = "by another program since it was written"
    if record["labelled"] < record["rows"]:
        head["labelled"] = f"{record['labelled']:,} rows"
    if verified := record.get("verified"):
        head["verified"] = (
            f"{verified['rows']:,} rows extracted again, equal within"
            f" {verified['tolerance']:g} of each one's largest value; largest difference: "
            + ", ".join(
                f"{layer} {most['absolute']:.1e} ({most['relative']:.1e})"
                for layer, most in verified["layers"].items()
            )
        )
    layers = [
        [name, " × ".join(map(str, layer["shape"])), layer["dtype"], size(layer["bytes"])]
        for name, layer in record["layers"].items()
    ]
    return {
        record["file"]: facts_table(head),
        "layers": (["layer", "shape of a row", "numbers", "size"], layers),
        "made with": facts_table(_made_with(record["provenance"])),
    }


def _classes(counts: Mapping[str, int]) -> str:
    if not counts:
        return "none"
    least, most = min(counts.values()), max(counts.values())
    rows = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    more = ", …" if len(counts) > SHOWN_CLASSES else ""
    named = ", ".join(list(counts)[:SHOWN_CLASSES]) + more
    return f"{len(counts):,} of {rows} rows: {named}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {word}" for word, count in counts.items())


def _made_with(provenance: Mapping[str, Any]) -> dict[str, str]:
    """The provenance, a line each; what is not known here is shown as it is."""
    left = dict(provenance)
    made = left.pop("fingerprint", None)
    for known in ("layers", "dtype", "stored_views"):  # the file itself says them
        left.pop(known, None)
    told = {"network": _said(left.pop("model", ""))}
    weights, data = left.pop("weights", None), left.pop("data", None)
    if isinstance(weights, Mapping):
        told["weights"] = _with_hash(weights.get("source"), weights.get("sha256"))
    if isinstance(data, Mapping):
        pixels = made.get("data") if isinstance(made, Mapping) else None
        place = data.get("path") or data.get("root")
        told["data"] = _with_hash(f"{place}, {data.get('kind')}", pixels)
    words = left.pop("command_line", None)
    if isinstance(words, list):
        told["command"] = shlex.join(["alexkit", *map(str, words)])
    began, ended = left.pop("started", None), left.pop("ended", None)
    told |= {name: _said(value) for name, value in left.items()}
    if began:
        told["made"] = _when(str(began), str(ended))
    return {name: text for name, text in told.items() if text}


def _with_hash(name: Any, digest: Any) -> str:
    return f"{name} ({str(digest)[:SHORT_HASH]})" if digest else str(name)


def _when(began: str, ended: str) -> str:
    try:
        start = datetime.fromisoformat(began)
        told = f"{start:%Y-%m-%d %H:%M:%S} UTC"
        seconds = (datetime.fromisoformat(ended) - start).total_seconds()
    except ValueError:  # not ended yet, or written by another program
        return began
    return f"{told}, in {duration(seconds)}"


def _said(value: Any) -> str:
    """Any JSON value in few words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_said, value))
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(inner)}" for name, inner in value.items())
    return str(value)
