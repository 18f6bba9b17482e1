"""``alexkit compare``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import CompareOptions


def act(options: CompareOptions, console: Console) -> None:
    """Runs the recipe and shows every two layers in a line."""
    from alexkit.recipes import compare
    from alexkit.reports.tables import comparison_table

    result = compare.run(options, console.report)
    title = f"{result['stimuli']:,} images, {result['metric']} distance"
    console.table(*comparison_table(result), title=title)
    console.finish("compare", result)
