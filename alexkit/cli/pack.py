"""``alexkit pack``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import PackOptions


def act(options: PackOptions, console: Console) -> None:
    """Runs the recipe and shows what the pack holds."""
    from alexkit.recipes import pack
    from alexkit.reports.tables import pack_table

    result = pack.run(options, console.report)
    console.table(*pack_table(result), title=result["file"])
    console.finish("pack", result)
