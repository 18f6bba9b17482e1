"""``alexkit info``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import InfoOptions


def act(options: InfoOptions, console: Console) -> None:
    """Shows what a file or folder is, in one screen, or the rows of a feature file."""
    from alexkit.recipes import info
    from alexkit.reports.features import ROW_COLUMNS, feature_blocks
    from alexkit.reports.tables import facts_table

    result = info.run(options, console.report)
    if "table" in result:
        console.rows(ROW_COLUMNS, [list(map(str, row.values())) for row in result["table"]])
    elif result.get("kind") == "features":
        for title, table in feature_blocks(result).items():
            console.table(*table, title=title)
    else:
        for title, facts in result.items():
            console.table(*facts_table(facts), title=title)
    console.finish("info", result)
