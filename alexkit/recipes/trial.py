"""The first images of a long extraction on a CPU, worked in several ways; the quickest goes on.

What is quickest differs between processors: two threads of one core may help or be in each
other's way, and a cache may hold the maps of a small batch only. The trial is the beginning of
the work itself: nothing is computed twice, and no value depends on batches or threads
(:meth:`alexkit.recipes.extraction.Job.features`). So it costs what the slower ways lose.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from dataclasses import replace

from joblib import cpu_count

from alexkit.events import Note, Reporter
from alexkit.features.extract import FeatureBatch
from alexkit.images.draws import Rows
from alexkit.recipes.extraction import Job
from alexkit.recipes.meter import Meter

LEAST_BATCHES = 16
"""Batches for each core from which on it is worth a trial, which takes three or four."""
SMALLER = 4
"""By which the other batch is smaller."""
LEAST_GAIN = 1.1
"""So much quicker another way must be: what else the machine does moves two seconds by less."""


def features_tried(
    job: Job, rows: Rows, meter: Meter | None, report: Reporter
) -> Iterator[FeatureBatch]:
    """What :meth:`Job.features` gives, in the way that is quickest here, which is said.

    Where ``rows`` are few, or on another device than a CPU, the way of ``job`` stays.

    Raises:
        OutOfMemory: a batch does not fit into the device's memory.
    """
    each, ways = job.batch_size * job.threads, _ways(job)
    if job.device.type != "cpu" or len(ways) == 1 or len(rows) < LEAST_BATCHES * each:
        yield from job.features(rows, meter=meter)
        return
    yield from job.features(rows[:each])  # the first batch of all takes longer
    first, paces = each, []
    for way in ways:
        began = time.perf_counter()
        yield from way.features(rows[first : first + each])
        paces.append(each / (time.perf_counter() - began))
        first += each
    usual, best = paces[0], max(paces)
    chosen = ways[paces.index(best)] if best > LEAST_GAIN * usual else job
    told = ", ".join(f"{_told(w)} {pace:.1f}" for w, pace in zip(ways, paces, strict=True))
    report(Note(f"tried, images/s: {told}; going on with {_told(chosen)}"))
    yield from chosen.features(rows[first:], meter=meter)


def _ways(job: Job) -> list[Job]:
    """How the cores may share the work, ``job``'s own way first."""
    ways = [job]
    if job.batch_size >= SMALLER:
        ways.append(replace(job, batch_size=job.batch_size // SMALLER))
    with warnings.catch_warnings():  # where the system does not tell, all are taken for cores
        warnings.simplefilter("ignore")
        cores = cpu_count(only_physical_cores=True)
    if cores < job.threads:
        ways.append(replace(job, threads=cores))
    return ways


def _told(job: Job) -> str:
    return f"batches of {job.batch_size} on {job.threads} threads"
