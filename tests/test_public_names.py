"""The names ``import alexkit`` offers, and that it stays light."""

from __future__ import annotations

import subprocess
import sys

import pytest

import alexkit


def test_every_public_name_resolves() -> None:
    for name in alexkit.__all__:
        assert getattr(alexkit, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        alexkit.no_such_name  # noqa: B018 - looking it up is the test


def test_importing_it_loads_nothing_heavy() -> None:
    script = "import sys, alexkit; assert not {'torch', 'h5py', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
