"""``alexkit eval``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import EvalOptions


def act(options: EvalOptions, console: Console) -> None:
    """Runs the recipe and shows one table a feature file, then what is sure of it."""
    from alexkit.recipes import evaluate
    from alexkit.reports.scores import (
        by_file,
        comparison_lines,
        eval_table,
        gap_lines,
        interval_lines,
    )

    result = evaluate.run(options, console.report)
    results, published = result["results"], result["protocol"]["published"]
    for file, some in by_file(results).items():
        console.table(*eval_table(some, published), title=file)
    for line in [
        *gap_lines(results),
        *interval_lines(results),
        *comparison_lines(result["comparisons"]),
    ]:
        console.line(line)
    console.finish("eval", result)
