"""``alexkit finetune``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import FinetuneOptions


def act(options: FinetuneOptions, console: Console) -> None:
    """Runs the recipe and shows the accuracy on the images it held out."""
    from alexkit.recipes import finetune
    from alexkit.reports.tables import fit_table

    result = finetune.run(options, console.report)
    console.table(*fit_table(result))
    console.finish("finetune", result)
