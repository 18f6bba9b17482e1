"""metrics.csv, the curves and TensorBoard's events, also of a run that is continued."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path

import pytest

from alexkit.recipes.journal import CURVES, EVENTS, TAGS, Journal
from alexkit.recipes.progress import METRICS


def row(epoch: int, top1: float) -> dict[str, float]:
    return dict.fromkeys(TAGS, 0.5) | {"epoch": epoch, "top1": top1, "judged": 8}


def test_the_metrics_are_one_row_an_epoch(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.draw([])
    assert not (tmp_path / CURVES).exists()
    rows = [row(1, 0.25)]
    journal.add(rows)
    rows.append(row(2, 0.75))
    journal.add(rows)
    journal.draw(rows)
    journal.close()
    with (tmp_path / METRICS).open(newline="") as file:
        assert [line["top1"] for line in csv.DictReader(file)] == ["0.25", "0.75"]
    assert (tmp_path / CURVES).stat().st_size > 0


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="needs the extra tensorboard"
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_events_and_forgets_what_was_done_again(tmp_path: Path) -> None:
    readers = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    killed = Journal(tmp_path)
    killed.add([row(1, 0.1)])
    killed.add([row(1, 0.1), row(2, 0.2)])
    killed.close()
    (first,) = (tmp_path / EVENTS).iterdir()
    # Continued from a checkpoint before the end of the second epoch; in a later file.
    first.rename(first.with_name("events.out.tfevents.0000000001.killed"))
    again = Journal(tmp_path)
    again.add([row(1, 0.1), row(2, 0.3)])
    again.add([row(1, 0.1), row(2, 0.3), row(3, 0.4)])
    again.close()
    read = readers.EventAccumulator(str(tmp_path / EVENTS)).Reload()
    assert set(read.Tags()["scalars"]) == set(TAGS.values())
    told = [(event.step, round(event.value, 6)) for event in read.Scalars("top-1/held out")]
    assert told == [(1, 0.1), (2, 0.3), (3, 0.4)]
