"""``alexkit validate``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.using import ValidateOptions


def act(options: ValidateOptions, console: Console) -> None:
    """Runs the recipe and shows the scores, then what is mistaken for what."""
    from alexkit.recipes import validate
    from alexkit.reports.predictions import confused_lines, validation_table

    result = validate.run(options, console.report)
    console.table(*validation_table(result), title=result["run"])
    for line in confused_lines(result["confused"]):
        console.line(line)
    console.finish("validate", result)
