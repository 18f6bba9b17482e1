"""Pages and figures of what earlier runs have left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alexkit.choices import Figure
from alexkit.errors import DataError, UsageError
from alexkit.events import Chosen, Note, Reporter, Saved
from alexkit.features.store import FeatureStore
from alexkit.images.opening import open_source
from alexkit.models.zoo import load_backbone
from alexkit.recipes.inputs import (
    FEATURES_FILE,
    FILE_SUFFIXES,
    choose_feature_files,
    choose_weights,
)
from alexkit.recipes.looking import (
    FULL,
    NEAREST,
    Effort,
    candidates,
    chosen_layer,
    draw_queries,
    search,
)
from alexkit.recipes.options import ReportOptions
from alexkit.recipes.out_file import check_out
from alexkit.recipes.pages import COMMANDS, compare, page_of
from alexkit.recipes.reporting import REPORT
from alexkit.recipes.run_dir import RUNS, runs_here
from alexkit.reports.page import Chart, Dots, Page, write_page
from alexkit.reports.plots import (
    FORMATS,
    IMAGE_DPI,
    Cell,
    draw_chart,
    draw_dots,
    draw_kernels,
    draw_neighbours,
    file_name,
    save,
)
from alexkit.reports.thumbnails import rows_of, squares

PLOTS = "plots"
PHOTO_SIDE = 160
"""Pixels of an image in a printed figure."""


def run(options: ReportOptions, report: Reporter) -> dict[str, Any]:
    """Writes the page of a run and its plots, a page of several runs, or a figure.

    The page of a run goes into its folder, its plots into ``plots/`` there. An older page is
    replaced: it can always be made again.

    Returns the ``files`` written.

    Raises:
        AlexkitError: see :mod:`alexkit.errors`.
    """
    if options.figure is Figure.KERNELS:
        return _written(_kernels(options, report), report, "figure")
    if options.figure is Figure.NEIGHBOURS:
        return _written(_neighbours(options, report), report, "figure")
    places = options.runs or _newest(report)
    for place in places:
        if not place.exists():
            raise DataError(f"there is no {place}", hint="name a run folder or a feature file")
        if not place.is_dir() and place.suffix not in FILE_SUFFIXES:
            raise UsageError(
                f"{place} is no run folder and no feature file",
                hint="weight files are for --figure kernels",
            )
    if len(places) > 1:
        return _written([_side_by_side(places, options)], report, "report")
    effort = replace(FULL, layer=options.layer, umap=options.umap, seed=options.seed)
    return _written(_one(places[0], effort, options), report, "report")


def _newest(report: Reporter) -> tuple[Path, ...]:
    for folder in runs_here(COMMANDS, state="done"):
        report(Chosen("run", str(folder), "the newest here"))
        return (folder,)
    raise UsageError("no run was named, and runs/ has none", hint="type: alexkit report RUN")


def _one(place: Path, effort: Effort, options: ReportOptions) -> list[Path]:
    page = page_of(place, effort, data=options.data)
    folder = place if place.is_dir() else place.parent
    name = REPORT if place.is_dir() else f"{place.stem}-report.html"
    path = options.out or folder / name
    check_out(path, overwrite=True, endings=(".html",))
    write_page(page, path)
    plots = path.parent / (PLOTS if path.name == REPORT else f"{path.stem}-{PLOTS}")
    return [path, *_plots(page, plots)]


def _plots(page: Page, folder: Path) -> list[Path]:
    """Every chart and map of a page as PNG and SVG."""
    written = []
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Chart | Dots):
                figure = draw_chart(block) if isinstance(block, Chart) else draw_dots(block)
                folder.mkdir(exist_ok=True)
                for kind in FORMATS:
                    path = folder / f"{file_name(block.title)}.{kind}"
                    written.append(save(figure, path))
    return written


def _side_by_side(places: Sequence[Path], options: ReportOptions) -> Path:
    if len(set(places)) < len(places):
        raise UsageError("a run is named twice", hint="name each run once")
    path = options.out or _next_page()
    check_out(path, overwrite=True, endings=(".html",))
    page = compare(places)
    path.parent.mkdir(exist_ok=True)
    write_page(page, path)
    return path


def _next_page() -> Path:
    taken = [int(p.stem[7:]) for p in RUNS.glob("report-[0-9]*.html") if p.stem[7:].isdigit()]
    return RUNS / f"report-{max(taken, default=0) + 1:03d}.html"


def _figure_files(options: ReportOptions, folder: Path) -> list[Path]:
    """Where a figure goes: as ``--out`` says, else PNG and SVG in the folder."""
    assert options.figure is not None
    if options.out is not None:
        endings = tuple(f".{kind}" for kind in FORMATS)
        check_out(options.out, overwrite=True, endings=endings)
        return [options.out]
    return [folder / f"{options.figure.value}.{kind}" for kind in FORMATS]


def _only(options: ReportOptions) -> Path | None:
    assert options.figure is not None
    if len(options.runs) > 1:
        raise UsageError(
            f"--figure {options.figure.value} is of one run", hint="name one run or file"
        )
    return options.runs[0] if options.runs else None


def _kernels(options: ReportOptions, report: Reporter) -> list[Path]:
    place = _only(options)
    chosen = choose_weights("auto" if place is None else str(place), report)
    backbone = load_backbone(None, chosen, seed=options.seed)
    kernels = backbone.net.canonical_state_dict()["conv1.weight"].float().numpy()
    if backbone.preprocess.channels == "BGR":
        kernels = kernels[:, ::-1]
    towers = len(getattr(backbone.net, "towers", (None,)))
    report(Note(f"{len(kernels)} kernels of {backbone.name}, {towers} block(s), {chosen}"))
    figure = draw_kernels(kernels, towers)
    folder = place if place is not None and place.is_dir() else Path()
    return [save(figure, path) for path in _figure_files(options, folder)]


def _neighbours(options: ReportOptions, report: Reporter) -> list[Path]:
    place = _only(options)
    if place is None:
        (place,) = choose_feature_files((), report)
    file = place / FEATURES_FILE if place.is_dir() else place
    with FeatureStore.open(file) as store:
        layer = chosen_layer(store, options.layer)
        done = store.rows()
        if done.size < 2:
            raise DataError(f"{file} has fewer than two rows", hint="extract more images")
        source = open_source(options.data or store.data or Path(), report)
        queries = draw_queries(store, done, options.seed)
        found = search(store, layer, queries, candidates(store, queries, done))
        lines = []
        for query, rows, far in zip(queries, found.rows, found.distances, strict=True):
            near = [(int(r), f"{d:.4g}") for r, d in zip(rows, far, strict=True) if r >= 0]
            lines.append([(int(query), store.class_of(int(query))), *near])
        paths = {row: store.paths[row] for line in lines for row, _ in line}
    at = rows_of(source, paths.values())
    photos = squares(source, list(at.values()), PHOTO_SIDE, seconds=FULL.seconds)
    cells: list[list[Cell]] = [
        [(photos.get(at.get(paths[row], -1)), told) for row, told in line] for line in lines
    ]
    report(Note(f"{len(lines)} images, {NEAREST} nearest each in {layer}, Euclidean distance"))
    figure = draw_neighbours(cells)
    folder = place if place.is_dir() else place.parent
    return [save(figure, path, dpi=IMAGE_DPI) for path in _figure_files(options, folder)]


def _written(files: Sequence[Path], report: Reporter, what: str) -> dict[str, Any]:
    for path in files[:1]:
        report(Saved(what, str(path)))
    return {"files": [str(path) for path in files]}
