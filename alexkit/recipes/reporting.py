"""The page at the end of a run, which must never cost the run anything but a moment."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from alexkit.events import Reporter, Saved, Warned
from alexkit.images.source import ImageSource

REPORT = "report.html"


def report_at_the_end(
    folder: Path, report: Reporter, source: ImageSource | None = None
) -> None:
    """Writes ``report.html`` into the folder of a finished run, in a second or two.

    Whatever goes wrong is a warning: the run is done, and ``alexkit report`` makes the page.

    Args:
        source: the run's images, where they are open; else they are opened for thumbnails.
    """
    try:
        # Not imported above: scikit-learn's t-SNE and the templates take a second to load.
        pages = import_module("alexkit.recipes.pages")
        path = pages.write_report(folder, source)
    except Exception as problem:
        told = str(problem) or type(problem).__name__
        report(Warned(f"{REPORT} could not be written: {told}; alexkit report {folder}"))
    else:
        report(Saved("report", str(path)))
