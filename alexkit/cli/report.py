"""``alexkit report``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import ReportOptions


def act(options: ReportOptions, console: Console) -> None:
    """Writes pages or figures and names the files."""
    from alexkit.recipes import report

    result = report.run(options, console.report)
    for file in result["files"]:
        console.line(file)
    console.finish("report", result)
