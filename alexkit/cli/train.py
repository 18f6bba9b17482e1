"""``alexkit train``."""

from __future__ import annotations

import logging
import sys

import typer

from alexkit.cli.console import Console
from alexkit.recipes.options import TrainOptions


def act(options: TrainOptions, console: Console) -> None:
    """Runs the recipe and shows the accuracy on the images it held out; or the verdict."""
    from alexkit.recipes import train, verify_resume
    from alexkit.reports.tables import fit_table, verdict
    from alexkit.training.launch import launched_rank, start

    if options.verify_resume:
        found = verify_resume.run(options, console.report)
        console.line(verdict(found))
        console.finish("train", found)
        return
    processes = train.processes(options)
    if processes > 1:
        # Its warnings say how it ends the others; ours say why.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        program = "from alexkit.cli.app import program; program()"
        raise typer.Exit(start(processes, [sys.executable, "-c", program, *sys.argv[1:]]))
    result = train.run(options, console.report)
    if launched_rank():
        return
    console.table(*fit_table(result))
    console.finish("train", result)
