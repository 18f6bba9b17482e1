"""Optional packages, each imported when it is first wanted."""

from __future__ import annotations

import importlib
from types import ModuleType

from alexkit.errors import UsageError


def extra(name: str, wanted: str, module: str, package: str = "") -> ModuleType:
    """A module of a package that ``pip install "alexkit[NAME]"`` brings.

    Args:
        name: of the extra.
        wanted: what needs it, for the message.
        module: what to import.
        package: what it is called, where that is not the module's name.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError(
            f"{wanted} needs {package or module}, which is not installed",
            hint=f'type: pip install "alexkit[{name}]"',
        ) from error
