"""``alexkit demo``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import DemoOptions


def act(options: DemoOptions, console: Console) -> None:
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
