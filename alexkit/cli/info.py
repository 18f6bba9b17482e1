"""``alexkit info``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import InfoOptions


def act(options: InfoOptions, console: Console) -> None:
    """Shows what a file or folder is, in one screen."""
    from alexkit.recipes import info
    from alexkit.reports.tables import facts_table

    result = info.run(options, console.report)
    for title, facts in result.items():
        console.table(*facts_table(facts), title=title)
    console.finish("info", result)
