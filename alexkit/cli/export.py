"""``alexkit export``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.using import ExportOptions


def act(options: ExportOptions, console: Console) -> None:
    """Runs the recipe and tells what the new file holds."""
    from alexkit.recipes import export
    from alexkit.reports.tables import export_table

    result = export.run(options, console.report)
    console.table(*export_table(result), title=result["file"])
    console.finish("export", result)
