"""``alexkit eval``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import EvalOptions


def act(options: EvalOptions, console: Console) -> None:
    """Runs the recipe and shows one table a feature file."""
    from alexkit.recipes import evaluate
    from alexkit.reports.tables import eval_table

    result = evaluate.run(options, console.report)
    for file in dict.fromkeys(r["file"] for r in result["results"]):
        rows = [r for r in result["results"] if r["file"] == file]
        console.table(*eval_table(rows), title=file)
    console.finish("eval", result)
