"""``alexkit check``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import CheckOptions


def act(options: CheckOptions, console: Console) -> None:
    """Shows what the data holds and what was found; data that misleads is an error."""
    from alexkit.recipes import check
    from alexkit.reports.tables import check_table, findings_table

    result = check.run(options, console.report)
    console.table(*check_table(result), title=result["root"])
    if result["findings"]:
        console.table(*findings_table(result["findings"]))
    console.finish("check", result)
    check.raise_if_wrong(result)
