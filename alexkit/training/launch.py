"""The processes that a launcher started for one command, and what they tell one another.

``torchrun``, or whatever else sets its variables, starts a command once a device and gives
each process a rank. They share a store of keys and values, the launcher's, through which
each says that it lives, every second, and how it ended. So the others can tell a process
that was killed, which says nothing any more, from one that stopped or failed.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

from joblib import cpu_count
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from alexkit.errors import AlexkitError, Interrupted, UsageError, WorkerFailed

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
START_SECONDS = 300.0
"""How long all processes may take to begin."""
BEAT_SECONDS = 1.0
SILENT_SECONDS = 30.0
"""A process that has not said for so long that it lives is taken for dead."""
STOPPING_SECONDS = 6.0
"""The same once all were told to stop: ``torchrun`` does that when one of them died, and kills
after 30 seconds."""
PAUSE_SECONDS = 0.1
PASSED_ON = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
DONE = "done"
STOPPED = "stopped"


def launched() -> bool:
    """Whether a launcher started this process."""
    return all(name in os.environ for name in VARIABLES)


def launched_rank() -> int:
    """The rank that the launcher gave this process; 0 where there is no launcher."""
    rank = os.environ["RANK"] if launched() else "0"
    return int(rank) if rank.isdecimal() else 0


def launched_world() -> int:
    """How many processes the launcher started; 1 where there is no launcher."""
    world = os.environ["WORLD_SIZE"] if launched() else "1"
    return int(world) if world.isdecimal() else 1


class Ranks:
    """The processes of one command; one alone where no launcher started it.

    Use it in a ``with`` statement: how the block ends is told to the others.

    Attributes:
        rank: this process, 0 to ``world`` - 1; 0 is the one that reports and writes.
        world: how many there are.
        local_rank, local_world: the same among those on this machine.
    """

    def __init__(
        self,
        rank: int = 0,
        world: int = 1,
        local_rank: int = 0,
        local_world: int = 1,
        store: Store | None = None,
    ) -> None:
        assert 0 <= rank < world
        assert world == 1 or store is not None
        self.rank, self.world = rank, world
        self.local_rank, self.local_world = local_rank, local_world
        self._store = store
        self._beats: dict[int, tuple[int, float]] = {}
        self._checked = 0.0
        self._note = self._last = ""
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="alexkit-rank", daemon=True)

    @classmethod
    def launched(cls) -> Ranks:
        """The processes that ``torchrun``'s variables tell of.

        Raises:
            UsageError: the variables are no numbers.
            WorkerFailed: they did not all begin within five minutes.
        """
        if not launched():
            return cls()
        try:
            rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
            local_rank = int(os.environ.get("LOCAL_RANK", rank))
            local_world = int(os.environ.get("LOCAL_WORLD_SIZE", world))
            if not (0 <= rank < world and 0 <= local_rank < local_world):
                raise ValueError(f"rank {rank} of {world}")
        except ValueError as problem:
            raise UsageError(
                f"the launcher's variables are wrong: {problem}",
                hint=f"start it with torchrun, or unset {', '.join(VARIABLES)}",
            ) from None
        if world == 1:
            return cls()
        try:
            store, _, _ = next(rendezvous("env://", timeout=timedelta(seconds=START_SECONDS)))
        except RuntimeError as problem:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise WorkerFailed(
                f"rank {rank} of {world} did not find the others at {where}",
                hint=str(problem).splitlines()[0],
            ) from problem
        store.set_timeout(timedelta(seconds=SILENT_SECONDS))
        attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        return cls(rank, world, local_rank, local_world, PrefixStore(f"ranks/{attempt}", store))

    @property
    def store(self) -> Store:
        """The keys and values that all share."""
        assert self._store is not None
        return self._store

    @property
    def alone(self) -> bool:
        return self.world == 1

    def __enter__(self) -> Ranks:
        if not self.alone:
            self._beating.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if self.alone:
            return
        stopped = isinstance(error, Interrupted | KeyboardInterrupt)
        try:
            self.tell(_end(self.rank), _farewell(error, stopped))
            if stopped and (dead := self._dead()) is not None:
                raise self._gone(dead) from error
            if error is None and self.rank == 0:
                # The store may be in this process: the others need it until they end.
                self._wait_for_the_end()
        except WorkerFailed:
            if stopped:  # what stopped this process was another's death
                raise
        finally:
            self._over.set()
            self._beating.join(STOPPING_SECONDS)

    def tell(self, name: str, value: str) -> None:
        """Tells all the others; each name once.

        Raises:
            WorkerFailed: the launcher is gone.
        """
        with _reaching(self.rank):
            self.store.set(name, value)

    def hear(self, name: str, meanwhile: Callable[[], None]) -> str:
        """What was told under ``name``, once it is; ``meanwhile`` is called all the while.

        Raises:
            WorkerFailed: who should tell it is dead, or failed.
            Interrupted: it was stopped.
        """
        while (told := self._told(name)) is None:
            meanwhile()
            self.check()
            time.sleep(PAUSE_SECONDS)
        return told

    def add(self, name: str, count: int = 0) -> int:
        """Adds to a number that all share, which begins at 0, and returns it."""
        if self.alone:
            return count
        with _reaching(self.rank):
            return int(self.store.add(name, count))

    def note(self, count: int, last: str) -> None:
        """Says how far this process is, and the file it read last; told with its next beat."""
        self._last = last or self._last  # none of its own in a batch smaller than the ranks
        self._note = json.dumps([count, self._last])

    def late(self, count: int) -> str:
        """Which others are not as far as ``count``, each with its last file."""
        told = []
        for rank in range(self.world):
            done, _ = self._noted(rank)
            if rank != self.rank and done < count:
                told.append(f"rank {rank} has not come{self._last_file(rank)}")
        return "; ".join(told) or "all have come"

    def blame(self, error: RuntimeError) -> None:
        """Finds who is behind an error of the connection: raises as :meth:`check` does, or
        returns after some seconds in which all others showed that they live."""
        if self.alone:
            return
        for rank in range(self.world):
            if rank != self.rank and (end := self._ended(rank)) is not None:
                _raise_as(rank, end)
        if (dead := self._dead()) is not None:
            raise self._gone(dead) from error

    def check(self, *, everyone: bool = False) -> None:
        """Looks, once a second at the most, how the others are: rank 0 at all of them, the
        others at rank 0, or at ``everyone``.

        Raises:
            WorkerFailed: one is dead, or failed.
            Interrupted: one was stopped.
        """
        at = time.monotonic()
        if self.alone or at - self._checked < BEAT_SECONDS:
            return
        self._checked = at
        others = [rank for rank in range(self.world) if rank != self.rank]
        for rank in others if everyone or self.rank == 0 else (0,):
            if (end := self._ended(rank)) is not None:
                _raise_as(rank, end)
                continue
            beat = self.add(_beat(rank))
            seen, since = self._beats.get(rank, (-1, at))
            if beat != seen:
                self._beats[rank] = beat, at
            elif at - since > (SILENT_SECONDS if beat else START_SECONDS):
                raise self._gone(rank)

    def _beat(self) -> None:
        """Of a thread of its own. It ends with the store: the main thread will notice."""
        noted = ""
        while True:
            try:
                if self._note != noted:
                    noted = self._note
                    self.tell(_at(self.rank), noted)
                self.add(_beat(self.rank), 1)
            except WorkerFailed:
                return
            if self._over.wait(BEAT_SECONDS):
                return

    def _told(self, name: str) -> str | None:
        """What was told under ``name``, if it was."""
        with _reaching(self.rank):
            return bytes(self.store.get(name)).decode() if self.store.check([name]) else None

    def _noted(self, rank: int) -> tuple[int, str]:
        count, last = json.loads(self._told(_at(rank)) or '[0, ""]')
        return int(count), str(last)

    def _last_file(self, rank: int) -> str:
        _, last = self._noted(rank)
        return f"; the last file it read is {last}" if last else ""

    def _gone(self, rank: int) -> WorkerFailed:
        return WorkerFailed(
            f"rank {rank} is dead: it no longer answers{self._last_file(rank)}",
            hint="the same command, with any number of ranks, continues from what is written",
        )

    def _ended(self, rank: int) -> str | None:
        return self._told(_end(rank))

    def _dead(self) -> int | None:
        """The first that had begun and is silent now, all having been told to stop."""
        beats = {rank: self.add(_beat(rank)) for rank in range(self.world)}
        unsure = {rank for rank, beat in beats.items() if beat and rank != self.rank}
        until = time.monotonic() + STOPPING_SECONDS
        while unsure and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)
            unsure = {
                rank
                for rank in unsure
                if self._ended(rank) is None and self.add(_beat(rank)) == beats[rank]
            }
        return min(unsure, default=None)

    def _wait_for_the_end(self) -> None:
        until = time.monotonic() + STOPPING_SECONDS
        while time.monotonic() < until:
            if all(self._ended(rank) is not None for rank in range(1, self.world)):
                return
            time.sleep(PAUSE_SECONDS)


@contextmanager
def _reaching(rank: int) -> Iterator[None]:
    """Turns what the store raises when it is gone into :class:`WorkerFailed`."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerFailed(
            f"rank {rank} can no longer reach the launcher: rank 0 or its machine is gone",
            hint="the same command continues from what is written",
        ) from error


def _beat(rank: int) -> str:
    return f"beat/{rank}"


def _at(rank: int) -> str:
    return f"at/{rank}"


def _end(rank: int) -> str:
    return f"end/{rank}"


def _farewell(error: BaseException | None, stopped: bool) -> str:
    if error is None or stopped:
        return STOPPED if stopped else DONE
    if isinstance(error, AlexkitError):
        return json.dumps([error.message, error.hint])
    return json.dumps([f"{type(error).__name__}: {error}", "see what that rank printed"])


def _raise_as(rank: int, end: str) -> None:
    """Raises what the end of another process means to this one; nothing if it was done."""
    if end == STOPPED:
        raise Interrupted(f"rank {rank} was stopped", hint="the same command continues")
    if end != DONE:
        message, hint = json.loads(end)
        raise WorkerFailed(f"rank {rank} failed: {message}", hint=hint)


def start(processes: int, command: Sequence[str]) -> int:
    """Runs ``command`` once in each of so many processes of this machine, by torch's elastic
    launcher, as ``torchrun`` would, and waits for them.

    SIGTERM, SIGINT, SIGHUP and SIGUSR1 are passed on, and half a minute is given to save.

    Returns:
        The exit status: 0, that of the first process which has one of its own, 130 after a
        signal, 7 where all that failed were killed.
    """
    # A third of a second's worth of modules that no other process needs.
    api = importlib.import_module("torch.distributed.launcher.api")
    errors = importlib.import_module("torch.distributed.elastic.multiprocessing.errors")
    multiprocessing = importlib.import_module("torch.distributed.elastic.multiprocessing.api")
    cores = cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    known = {field.name for field in dataclasses.fields(api.LaunchConfig)}
    passed = {"signals_to_handle": PASSED_ON} if "signals_to_handle" in known else {}
    config = api.LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
        # Otherwise a folder stays behind in the temporary one; the processes print here.
        logs_specs=multiprocessing.DefaultLogsSpecs(log_dir=os.devnull),
        **passed,
    )
    try:
        api.elastic_launch(config, command[0])(*command[1:])
    except errors.ChildFailedError as problem:
        ends = [failure.exitcode for _, failure in sorted(problem.failures.items())]
        return next((end for end in ends if end > 0), WorkerFailed.exit_status)
    except multiprocessing.SignalException:
        return Interrupted.exit_status
    return 0
