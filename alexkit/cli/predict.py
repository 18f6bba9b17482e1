"""``alexkit predict``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.using import PredictOptions


def act(options: PredictOptions, console: Console) -> None:
    """Runs the recipe and shows a row an image, as a table or as CSV."""
    from alexkit.recipes import predict
    from alexkit.reports.predictions import judged_line, prediction_rows, prediction_table

    result = predict.run(options, console.report)
    if options.csv:
        console.csv(*prediction_rows(result))
    else:
        console.table(*prediction_table(result))
        if told := judged_line(result):
            console.line(told)
    console.finish("predict", result)
