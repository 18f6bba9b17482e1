"""``alexkit neighbours``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import NeighboursOptions


def act(options: NeighboursOptions, console: Console) -> None:
    """Runs the recipe and shows a table an image."""
    from alexkit.recipes import neighbours
    from alexkit.reports.tables import neighbours_table

    result = neighbours.run(options, console.report)
    for query in result["queries"]:
        if query["error"] is None:
            console.table(*neighbours_table(query, result), title=query["path"])
    console.finish("neighbours", result)
