"""File systems that cannot lock, and two readers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from alexkit.features.store import FeatureStore
from tests.features.conftest import Example

WITHOUT_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { errno = NUMBER; return -1; }
"""
"""What the C library's ``flock`` does where NFS has no lock daemon (37) or fails (5)."""

READ = """
import sys
from pathlib import Path
from alexkit.features.store import FeatureStore
with FeatureStore.open(sys.argv[1]) as store:
    print(store.matrix("fc7").shape)
"""
WRITE = """
import sys
from pathlib import Path
from alexkit.errors import AlexkitError
from alexkit.features.writer import FeatureWriter
try:
    FeatureWriter(Path(sys.argv[1]))
except AlexkitError as error:
    print(error.exit_status, error.message, error.hint)
"""


@pytest.fixture
def no_locks(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    """An environment in which no file can be locked."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    library = tmp_path / "nolocks.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", str(library), "-x", "c", "-"],
        input=WITHOUT_LOCKS.replace("NUMBER", request.param),
        text=True,
        check=True,
    )
    return os.environ | {"LD_PRELOAD": str(library)}


def told(program: str, path: Path, environment: dict[str, str]) -> str:
    words = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("no_locks", ["ENOLCK", "EIO", "ENOSYS"], indirect=True)
def test_a_file_is_read_where_it_cannot_be_locked(
    example: Example, no_locks: dict[str, str]
) -> None:
    assert told(READ, example.write(), no_locks) == "(23, 40)\n"


@pytest.mark.parametrize("no_locks", ["ENOLCK", "EIO"], indirect=True)
def test_a_file_is_not_written_where_locking_fails(
    example: Example, no_locks: dict[str, str]
) -> None:
    example.create().close()
    said = told(WRITE, example.path, no_locks)
    assert said.startswith("2 ")
    assert "cannot be locked" in said
    assert "HDF5_USE_FILE_LOCKING=FALSE" in said
    allowed = no_locks | {"HDF5_USE_FILE_LOCKING": "FALSE"}
    assert told(WRITE, example.path, allowed) == ""


def test_two_readers_do_not_mind_each_other(example: Example) -> None:
    path = example.write()
    with FeatureStore.open(path) as one:
        assert told(READ, path, dict(os.environ)) == "(23, 40)\n"
        assert np.isfinite(one.matrix("fc7")).all()
