"""``alexkit features``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import FeaturesOptions


def act(options: FeaturesOptions, console: Console) -> None:
    """Runs the recipe and shows what the file holds, or what layers there are."""
    from alexkit.recipes import features, layers
    from alexkit.reports.tables import features_table, layers_table
    from alexkit.training.launch import launched_rank

    if options.list_layers:
        result = layers.list_layers(options, console.report)
        console.table(*layers_table(result), title=result["model"])
        console.finish("features", result)
        return
    result = features.run(options, console.report)
    if launched_rank():
        return
    console.table(*features_table(result), title=result["file"])
    console.finish("features", result)
