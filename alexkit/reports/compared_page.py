"""Several runs side by side: what differed between them, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alexkit.reports.eval_page import best_of, layer_chart, measured, shots_charts
from alexkit.reports.fit_page import curve_charts
from alexkit.reports.page import Block, Grid, Page, Section, Words
from alexkit.reports.scores import spread
from alexkit.reports.settings import asked, data_facts
from alexkit.reports.tables import duration, percent, size

NOT_COMPARED = ("out", "overwrite", "workers")
FITS = ("train", "finetune")


@dataclass(frozen=True)
class Run:
    """One of the runs: its ``run.json``, and what there is of metrics, scores or features."""

    name: str
    record: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]] = ()
    told: Mapping[str, Any] | None = None


def compared_page(runs: Sequence[Run]) -> Page:
    """The report of two runs or more, of any commands."""
    fits = [run for run in runs if run.record["command"] in FITS]
    evals = [run for run in runs if run.record["command"] == "eval" and run.told]
    features = [run for run in runs if run.record["command"] == "features" and run.told]
    return Page(
        "Runs side by side",
        ", ".join(run.name for run in runs),
        [],
        [
            Section("Training", _fits(fits)),
            Section("Probes", _evals(evals)),
            Section("Features", _features(features)),
            Section("Classes", _classes(evals)),
            Section("What differed", _differences(runs)),
        ],
    )


def _fits(runs: Sequence[Run]) -> list[Block]:
    if not runs:
        return []
    header = ["run", "network", "state", "top-1", "top-5", "held out", "best epoch", "time"]
    rows = []
    for run in runs:
        r = run.record.get("result") or {}
        told = [str(r.get("model", "–")), run.record["state"]]
        told += [percent(r.get("top1")), percent(r.get("top5"))]
        told += [str(r.get("n", "–")), str(r.get("best_epoch", "–"))]
        rows.append([run.name, *told, duration(r["seconds"]) if "seconds" in r else "–"])
    charts = curve_charts({run.name: run.metrics for run in runs})
    prints = {(run.record.get("data") or {}).get("fingerprint") for run in runs}
    same = (
        "All were judged on data of one fingerprint."
        if len(prints) == 1
        else "Their data differ: the fingerprints are not equal."
    )
    return [Grid((header, rows), "Held-out accuracy"), Words(same), *charts]


def _evals(runs: Sequence[Run]) -> list[Block]:
    if not runs:
        return []
    rows = []
    for run in runs:
        assert run.told is not None
        best = best_of(run.told["results"])
        measure, score = measured(best)
        protocol = run.told["protocol"]
        told = [best["layer"], measure, spread(score, best["splits"]), protocol["name"]]
        rows.append([run.name, *told, protocol["probe"], str(protocol["norm"])])
    header = ["run", "best layer", "measure", "score", "protocol", "probe", "norm"]
    results = {run.name: run.told["results"] for run in runs if run.told}
    blocks: list[Block] = [Grid((header, rows), "The best layer of each run")]
    chart = layer_chart(results)
    return [*blocks, *([chart] if chart else []), *shots_charts(results)]


def _features(runs: Sequence[Run]) -> list[Block]:
    rows = []
    for run in runs:
        told = run.told or {}
        status = ", ".join(f"{count:,} {word}" for word, count in told["status"].items())
        model = str(told["provenance"].get("model", "–"))
        layers = ", ".join(told["layers"])
        rows.append([run.name, model, layers, f"{told['rows']:,}", status, size(told["bytes"])])
    header = ["run", "network", "layers", "rows", "status", "size"]
    return [Grid((header, rows), "Feature files")] if rows else []


def _classes(runs: Sequence[Run]) -> list[Block]:
    if len(runs) < 2:
        return []
    best = {run.name: best_of(run.told["results"]) for run in runs if run.told}
    names = dict.fromkeys(name for r in best.values() for name in r["per_class"])
    rows = [
        [name, *(percent(r["per_class"].get(name)) for r in best.values())] for name in names
    ]
    header = ["class", *(f"{run}, {r['layer']}" for run, r in best.items())]
    return [Grid((header, rows), "Accuracy of each class, best layer of each run")]


def _differences(runs: Sequence[Run]) -> list[Block]:
    """Options, derived values, versions and fingerprints that are not equal in all runs."""
    told = [_settings(run.record) for run in runs]
    names = dict.fromkeys(name for one in told for name in one)
    rows = [
        [name, *(one.get(name, "–") for one in told)]
        for name in names
        if len({one.get(name, "–") for one in told}) > 1
    ]
    if not rows:
        return [Words("Options, derived values, versions and data are the same.")]
    header = ["setting", *(run.name for run in runs)]
    return [Grid((header, rows), "Options, derived values, versions and data that differ")]


def _settings(record: Mapping[str, Any]) -> dict[str, str]:
    told = {"command": str(record["command"])}
    for name, value in asked(record).items():
        if name not in NOT_COMPARED:
            told[f"--{name.replace('_', '-')}"] = str(value)
    for name, derived in (record.get("derived") or {}).items():
        told[name] = str(derived["value"])
    for name, value in (record.get("versions") or {}).items():
        told[f"version of {name}"] = str(value)
    data = data_facts(record.get("data") or {})
    return told | {f"data: {name}": str(value) for name, value in data.items()}
