"""``alexkit doctor``."""

from __future__ import annotations

from alexkit.cli.console import Console
from alexkit.recipes.options import DoctorOptions


def act(options: DoctorOptions, console: Console) -> None:
    """Shows each check; one that failed is an error."""
    from alexkit.recipes import doctor

    result = doctor.run(options, console.report)
    rows = [[c["check"], "ok" if c["ok"] else "WRONG", c["found"]] for c in result["checks"]]
    console.table(["check", "", "found"], rows)
    console.finish("doctor", result)
    doctor.raise_if_wrong(result)
