"""What each command does with its options: runs its recipe and shows what came of it.

Recipes and tables are imported by the command that needs them: ``--help`` loads no torch.
"""

from __future__ import annotations

import logging
import sys

import typer

from alexkit.cli.console import Console
from alexkit.recipes.options import (
    CheckOptions,
    CompareOptions,
    DemoOptions,
    DoctorOptions,
    EvalOptions,
    FeaturesOptions,
    FinetuneOptions,
    InfoOptions,
    NeighboursOptions,
    PackOptions,
    ReportOptions,
    TrainOptions,
)
from alexkit.recipes.using import ExportOptions, PredictOptions, ValidateOptions


def train(options: TrainOptions, console: Console) -> None:
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


def features(options: FeaturesOptions, console: Console) -> None:
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


def finetune(options: FinetuneOptions, console: Console) -> None:
    """Runs the recipe and shows the accuracy on the images it held out."""
    from alexkit.recipes import finetune
    from alexkit.reports.tables import fit_table

    result = finetune.run(options, console.report)
    console.table(*fit_table(result))
    console.finish("finetune", result)


def evaluate(options: EvalOptions, console: Console) -> None:
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


def compare(options: CompareOptions, console: Console) -> None:
    """Runs the recipe and shows every two layers in a line."""
    from alexkit.recipes import compare
    from alexkit.reports.tables import comparison_table

    result = compare.run(options, console.report)
    title = f"{result['stimuli']:,} images, {result['metric']} distance"
    console.table(*comparison_table(result), title=title)
    console.finish("compare", result)


def predict(options: PredictOptions, console: Console) -> None:
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


def validate(options: ValidateOptions, console: Console) -> None:
    """Runs the recipe and shows the scores, then what is mistaken for what."""
    from alexkit.recipes import validate
    from alexkit.reports.predictions import confused_lines, validation_table

    result = validate.run(options, console.report)
    console.table(*validation_table(result), title=result["run"])
    for line in confused_lines(result["confused"]):
        console.line(line)
    console.finish("validate", result)


def neighbours(options: NeighboursOptions, console: Console) -> None:
    """Runs the recipe and shows a table an image."""
    from alexkit.recipes import neighbours
    from alexkit.reports.tables import neighbours_table

    result = neighbours.run(options, console.report)
    for query in result["queries"]:
        if query["error"] is None:
            console.table(*neighbours_table(query, result), title=query["path"])
    console.finish("neighbours", result)


def check(options: CheckOptions, console: Console) -> None:
    """Shows what the data holds and what was found; data that misleads is an error."""
    from alexkit.recipes import check
    from alexkit.reports.tables import check_table, findings_table

    result = check.run(options, console.report)
    console.table(*check_table(result), title=result["root"])
    if result["findings"]:
        console.table(*findings_table(result["findings"]))
    console.finish("check", result)
    check.raise_if_wrong(result)


def pack(options: PackOptions, console: Console) -> None:
    """Runs the recipe and shows what the pack holds."""
    from alexkit.recipes import pack
    from alexkit.reports.tables import pack_table

    result = pack.run(options, console.report)
    console.table(*pack_table(result), title=result["file"])
    console.finish("pack", result)


def info(options: InfoOptions, console: Console) -> None:
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


def export(options: ExportOptions, console: Console) -> None:
    """Runs the recipe and tells what the new file holds."""
    from alexkit.recipes import export
    from alexkit.reports.tables import export_table

    result = export.run(options, console.report)
    console.table(*export_table(result), title=result["file"])
    console.finish("export", result)


def report(options: ReportOptions, console: Console) -> None:
    """Writes pages or figures and names the files."""
    from alexkit.recipes import report

    result = report.run(options, console.report)
    for file in result["files"]:
        console.line(file)
    console.finish("report", result)


def doctor(options: DoctorOptions, console: Console) -> None:
    """Shows each check; one that failed is an error."""
    from alexkit.recipes import doctor

    result = doctor.run(options, console.report)
    rows = [[c["check"], "ok" if c["ok"] else "WRONG", c["found"]] for c in result["checks"]]
    console.table(["check", "", "found"], rows)
    console.finish("doctor", result)
    doctor.raise_if_wrong(result)


def demo(options: DemoOptions, console: Console) -> None:
    """Runs the four commands on digits and shows one table."""
    from alexkit.recipes import demo

    result = demo.run(options, console.report)
    rows = [
        [s["step"], s["what"], s["figure"], f"{s['seconds']:.0f} s", s["out"]]
        for s in result["steps"]
    ]
    console.table(["step", "what", "result", "time", "where"], rows)
    console.line(result["caution"])
    console.finish("demo", result)
