"""Results, as the recipes return them, into the header and rows of a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from alexkit.whole_file import whole_file

Table = tuple[list[str], list[list[str]]]
"""Header cells, then rows of cells."""


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A table as CSV."""
    file = io.BytesIO()
    write_csv(file, chain([header], rows))
    return file.getvalue()


def save_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table as a CSV file, written as a whole.

    Raises:
        OSError: it cannot be written; an older one is as it was.
    """
    with whole_file(path) as file:
        write_csv(file, chain([header], rows))


def write_csv(file: BinaryIO, rows: Iterable[Sequence[Any]]) -> None:
    """Rows as CSV in UTF-8, each ended by a line feed; names of files are kept to the byte.

    Python before 3.13 puts a carriage return in quotes only where it is of a line's end: the
    name of a file could make two rows of one.
    """
    line = io.StringIO(newline="")
    writer = csv.writer(line, lineterminator="\r\n")
    for row in rows:
        writer.writerow(row)
        file.write(line.getvalue()[:-2].encode("utf-8", "surrogateescape") + b"\n")
        line.seek(0)
        line.truncate()


def percent(fraction: float | None) -> str:
    """0.8312 as ``83.1 %``."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def top1_of(scores: Mapping[str, Any]) -> str:
    """Top-1 as a percentage, with its standard deviation where it is the mean of folds."""
    if "std" not in scores:
        return percent(scores["top1"])
    return f"{100 * scores['top1']:.1f} ± {percent(scores['std'])}"


def size(count: int) -> str:
    """Bytes as people say them: 1536 as ``1.5 kB`` (powers of 1000)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def features_table(result: Mapping[str, Any]) -> Table:
    """One row a layer of a finished extraction or of an opened feature file."""
    rows = [
        [layer, " × ".join(map(str, shape)), str(result["rows"]), str(result["bad"])]
        for layer, shape in result["layers"].items()
    ]
    return ["layer", "shape", "rows", "bad"], rows


def export_table(result: Mapping[str, Any]) -> Table:
    """A feature file or a network written in another format."""
    if "form" in result:
        cells = [result["model"], str(result["classes"]), result["form"], size(result["bytes"])]
        return ["network", "classes", "form", "size"], [cells]
    layers = ", ".join(result["layers"]) or "none"
    return ["rows", "layers", "size"], [[str(result["rows"]), layers, size(result["bytes"])]]


def layers_table(result: Mapping[str, Any]) -> Table:
    """One row a layer of a network: what of it would be stored for one image."""
    rows = [
        [
            layer["name"],
            " × ".join(map(str, layer["shape"])),
            f"{layer['bytes']:,}",
            ", ".join(layer["aliases"]),
        ]
        for layer in result["layers"]
    ]
    return ["layer", "shape", "bytes an image", "also called"], rows


def pack_table(result: Mapping[str, Any]) -> Table:
    """A finished pack."""
    header = ["images", "classes", "pixels", "bad", "repaired", "size"]
    pixels = f"{result['side']} × {result['side']}"
    cells = (result["images"], result["classes"], pixels, result["bad"], result["repaired"])
    return header, [[*map(str, cells), size(result["bytes"])]]


def fit_table(result: Mapping[str, Any]) -> Table:
    """The held-out accuracy of one trained network, of folds the mean and its spread; where it
    was judged by ten views, too, a second row."""
    header = ["network", "classes", "held out", "images", "top-1", "top-5", "epochs", "minutes"]
    judged = f"{len(result['folds'])} folds" if "folds" in result else result["split"]
    rows = [
        [
            result["model"],
            str(result["classes"]),
            judged + views,
            str(scores["n"]),
            top1_of(scores),
            percent(scores["top5"]),
            str(result["epochs"]),
            f"{result['seconds'] / 60:.1f}",
        ]
        for views, scores in (("", result), (", ten views", result.get("ten_view")))
        if scores is not None
    ]
    return header, rows


def verdict(result: Mapping[str, Any]) -> str:
    """What ``train --verify-resume`` found, in one line."""
    return (
        f"resume is exact: {result['model']}, killed after step {result['killed_after']} of "
        f"{result['steps']} and continued, ends with equal bytes in "
        f"{', '.join(result['compared'])} ({result['seconds']:.0f} s)"
    )


def comparison_table(result: Mapping[str, Any]) -> Table:
    """One row a pair of layers: Spearman's ρ of their RDMs with its interval, and their CKA."""

    def number(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    rows = []
    for pair in result["pairs"]:
        rsa = pair["rsa"]
        between = f"{number(rsa['low'])} … {number(rsa['high'])}"
        cells = [pair["first"], pair["second"], number(rsa["mean"]), between]
        rows.append([*cells, number(pair["cka"])])
    return ["layer", "and", "RSA (ρ)", "95 %", "CKA"], rows


def neighbours_table(query: Mapping[str, Any], result: Mapping[str, Any]) -> Table:
    """One row a neighbour of an image, nearest first."""
    rows = [
        [str(rank), near["path"], near["class"] or "–", f"{near['distance']:.4g}"]
        for rank, near in enumerate(query["neighbours"], 1)
    ]
    return ["", f"nearest in {result['layer']}", "class", result["metric"]], rows


def neighbours_rows(result: Mapping[str, Any]) -> Table:
    """The same for programs, of every image."""
    rows = [
        [query["path"], str(rank), near["path"], near["class"] or "", repr(near["distance"])]
        for query in result["queries"]
        for rank, near in enumerate(query["neighbours"], 1)
    ]
    return ["query", "rank", "path", "class", result["metric"]], rows


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Names and values, one a row."""
    return ["", ""], [[name, str(value)] for name, value in facts.items()]


def duration(seconds: float) -> str:
    """A time as people plan with it: ``12 s``, ``4 min``, ``3.5 h``, ``2.1 days``."""
    for unit, length, below in (("s", 1, 100), ("min", 60, 100 * 60), ("h", 3600, 48 * 3600)):
        if seconds < below:
            value = seconds / length
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 86400:.1f} days"


KINDS = {
    "folder": "a folder of images",
    "list": "a list of images",
    "ilsvrc": "ImageNet's archives",
    "webdataset": "WebDataset shards",
    "datasets": "a Hugging Face dataset",
    "pack": "a pack",
}
"""What each kind of source is called."""


def check_table(result: Mapping[str, Any]) -> Table:
    """What a data set holds and how long work on it takes, one fact a row."""
    speed, per_class = result["speed"], result["per_class"]
    looked, images, compared = result["looked_at"], result["images"], result["compared"]
    splits = [f"{name or 'no split'} {n:,}" for name, n in result["splits"].items()]
    formats = [f"{name} {n:,}" for name, n in result["formats"].items()]
    of_them = "" if looked == images else f" of the {looked:,} looked at"
    of_those = "" if compared == images else f" among {compared:,} compared"
    facts = {
        "data": KINDS[result["kind"]],
        "images": f"{images:,} ({', '.join(splits)})",
        "classes": f"{len(per_class):,}" if per_class else "none: no labels",
    }
    if per_class:
        facts["images a class"] = _from_to(f"{min(per_class):,}", f"{max(per_class):,}")
    if looked < images:
        facts["looked at"] = f"{looked:,} images, evenly drawn; --images 0 looks at all"
    facts["formats"] = ", ".join(formats) or "none"
    if result["kind"] == "pack":
        facts["formats"] = "raw pixels"
    if result["widths"]:
        corners = zip(result["widths"], result["heights"], strict=True)
        least, middle, most = (f"{w} × {h}" for w, h in corners)
        facts["pixels"] = least if least == most else f"{middle} (median), {least} to {most}"
    facts |= {
        "size on disk": size(round(result["bytes"] * images / max(looked, 1))),
        "cannot be decoded": f"{len(result['bad']):,}{of_them}",
        "repaired or converted": f"{len(result['repaired']):,}{of_them}",
        "same bytes twice": f"{len(result['duplicates']):,}{of_those}",
        "reading, decoding": (
            f"{speed['loading']:,.0f} images/s with {speed['threads']} threads"
        ),
    }
    if speed["epoch_seconds"] is not None:
        told = f"{duration(speed['epoch_seconds'])} ({speed['model']}, {speed['device']})"
        facts["an epoch of train"] = told
    facts["features of all"] = (
        f"{duration(speed['features_seconds'])}, {size(speed['features_bytes'])} for fc7"
        f" ({speed['model']}, {speed['device']})"
    )
    if result["kind"] != "pack":
        facts["a pack of all"] = (
            f"{duration(speed['pack_seconds'])}, {size(speed['pack_bytes'])} on disk"
        )
    wrong = any(finding["wrong"] for finding in result["findings"])
    facts["to train on"] = "WRONG as it is, see below" if wrong else "good"
    return facts_table(facts)


def _from_to(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def findings_table(findings: Sequence[Mapping[str, Any]]) -> Table:
    """What was found, the wrong things first."""
    rows = [["WRONG" if f["wrong"] else "note", f["text"], f["hint"]] for f in findings]
    return ["", "found", "what to do"], rows
