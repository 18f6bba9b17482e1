"""What is kept of a long judgement: whole or not there, and nothing computed twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from alexkit.events import Event, StageAdvanced
from alexkit.probes.choice import NOTHING, choose_c, part_inside
from alexkit.probes.kept import Kept
from alexkit.probes.objective import one_vs_rest
from alexkit.probes.progress import Progress
from alexkit.probes.protocols import protocol_of
from tests.probes.conftest import MakeProblem


def test_what_is_stored_is_there_for_the_same_basis_only(tmp_path: Path) -> None:
    place = Kept(tmp_path, "basis").within(3)
    assert place.load() is None
    place.store(c=np.array([1.0]), told=np.array("né"))
    place.store(c=np.array([0.1 + 0.2]), told=np.array("né"))
    found = place.load()
    assert found is not None
    assert found["c"].tolist() == [0.1 + 0.2]
    assert str(found["told"]) == "né"
    assert Kept(tmp_path, "another").within(3).load() is None


@pytest.mark.parametrize("size", [0, 10, 300])
def test_what_was_cut_short_is_not_there(tmp_path: Path, size: int) -> None:
    place = Kept(tmp_path)
    place.store(c=np.arange(100.0))
    path = tmp_path / "kept.npz"
    path.write_bytes(path.read_bytes()[:size])
    assert place.load() is None


def test_whatever_byte_was_altered_is_not_there_or_as_it_was(tmp_path: Path) -> None:
    place = Kept(tmp_path)
    place.store(c=np.arange(3.0))
    path = tmp_path / "kept.npz"
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
        found = place.load()
        assert found is None or found["c"].tolist() == [0, 1, 2], at


def test_what_lacks_an_array_is_not_there(tmp_path: Path) -> None:
    place = Kept(tmp_path, "basis")
    place.store(a=np.zeros(1), b=np.ones(1))
    with np.load(tmp_path / "kept.npz") as file:
        left = {name: file[name] for name in file.files if name != "b"}
    np.savez(tmp_path / "kept.npz", **left)
    assert place.load() is None


def test_only_its_own_places_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    for place in (Kept(tmp_path), Kept(tmp_path).within(0).within("split")):
        place.store(c=np.zeros(1))
    Kept(tmp_path).drop()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_without_a_folder_nothing_is_kept() -> None:
    NOTHING.within(1).store(c=np.zeros(1))
    assert NOTHING.within(1).load() is None
    NOTHING.drop()


@pytest.mark.parametrize(
    ("n", "d", "probe"), [(90, 200, "svm"), (700, 20, "svm"), (90, 60, "ridge")]
)
def test_a_choice_that_was_interrupted_ends_as_if_it_never_was(
    make_problem: MakeProblem, tmp_path: Path, n: int, d: int, probe: str
) -> None:
    x, y = make_problem(n, d, 3)
    record = protocol_of("holdout")
    record = type(record)(**vars(record) | {"probe": probe})
    inside = part_inside(y, n, np.empty(0, np.int64), record, 0)
    fits: list[int] = []

    def choose(kept: Kept, until: int = 1000) -> object:
        def report(event: Event) -> None:
            if isinstance(event, StageAdvanced):
                fits.append(event.done)
                if event.done >= until:
                    raise KeyboardInterrupt

        return choose_c(
            x,
            y,
            one_vs_rest(y, np.arange(3)),
            record,
            inside,
            progress=Progress(report, 45),
            kept=kept,
        )

    whole = choose(NOTHING)
    fits.clear()
    with pytest.raises(KeyboardInterrupt):
        choose(Kept(tmp_path), until=3 * 9)  # told before it is stored: two C are kept
    fits.clear()
    again = choose(Kept(tmp_path))
    assert fits[0] == 2 * 9
    np.testing.assert_equal(vars(again), vars(whole))
