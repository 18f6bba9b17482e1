"""``alexkit features``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import FeaturesOptions


def act(options: FeaturesOptions, console: Console) -> None:
    """Runs the recipe and shows what the file holds."""
    from alexkit.recipes import features
    from alexkit.reports.tables import features_table

    result = features.run(options, console.report)
    console.table(*features_table(result), title=result["file"])
    console.finish("features", result)
