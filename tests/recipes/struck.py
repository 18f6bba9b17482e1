"""A command line in a process of its own, which gets a signal at a moment that is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

PROGRAM = """
import os, signal, sys
from alexkit.cli.app import program

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored behind a shell's "&"
says, number = sys.argv.pop(1), int(sys.argv.pop(1))

def watched(write):
    def struck(text):
        global number
        written = write(text)
        if number and says in text:
            at_once, number = number, 0
            os.kill(os.getpid(), at_once)
        return written
    return struck

for stream in (sys.stdout, sys.stderr):
    stream.write = watched(stream.write)
program()
"""


def struck(
    words: Sequence[str], says: str, number: signal.Signals, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a command line, which gets the signal as soon as it has said something.

    A stage's beginning and, with ``--json``, each of its steps are said at once.
    """
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, says, str(int(number)), *words],
        cwd=folder,
        # Sums depend on how many threads share them: as many as in this process.
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
