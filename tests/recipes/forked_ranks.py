"""Command lines by one process or several that share the work, one scene after another.

    python -m tests.recipes.forked_ranks '[{"words": ["train", …], "world": 2}, …]'

The processes are forked from this one, which has loaded torch once for all, and find one
another by the variables that torchrun sets; torchrun itself is in the slow tests. A scene may
have ``stop``, a file: as soon as that is there the last process gets SIGTERM; and ``copy``,
two folders: the first is copied to the second when the scene is over. Printed are the exit
status and stderr of each process of each scene, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from alexkit.cli.app import program
from alexkit.recipes import train
from tests.recipes.killed_training import load_writers

assert train, "loaded before the processes are forked"

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def forked(words: list[str], told: Path, variables: dict[str, str]) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= variables
    with told.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    sys.argv = ["alexkit", *words]
    try:
        program()
    finally:
        os._exit(99)


def played(number: int, scene: dict[str, Any]) -> dict[str, Any]:
    world, stop = scene.get("world", 1), scene.get("stop")
    port = str(free_port())
    told = [Path(f"scene-{number}-{rank}.txt") for rank in range(world)]
    children = []
    for rank in range(world):
        variables = {"RANK": str(rank), "WORLD_SIZE": str(world)}
        variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        children.append(forked(scene["words"], told[rank], variables if world > 1 else {}))
    until = time.monotonic() + 150
    while stop and not Path(stop).exists() and time.monotonic() < until:
        time.sleep(0.01)
    if stop:
        os.kill(children[-1], signal.SIGTERM)
    ends = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    for source, copy in [scene["copy"]] if "copy" in scene else []:
        shutil.copytree(source, copy)
    return {"ends": ends, "told": [path.read_text() for path in told]}


def play(folder: Path, scenes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ends and words of some scenes, played in a folder by a process of their own."""
    paths = os.pathsep.join([str(ROOT), *sys.path])
    done = subprocess.run(
        [sys.executable, "-m", "tests.recipes.forked_ranks", json.dumps(scenes)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def main() -> None:
    load_writers()
    scenes = json.loads(sys.argv[1])
    print(json.dumps([played(*pair) for pair in enumerate(scenes)]))  # noqa: T201


if __name__ == "__main__":
    main()
