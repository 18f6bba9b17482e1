"""Parts are taken into the whole file row by row; nothing is lost, nothing foreign gets in."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexkit.choices import FeatureDtype
from alexkit.errors import DamagedFile, FileMismatch, UsageError
from alexkit.features.layout import Plan, RowTable, Status
from alexkit.features.parts import PartWriter, part_path, parts_beside, rows_of_rank, take_in
from alexkit.features.store import FeatureStore
from alexkit.features.writer import FeatureWriter

COUNT = 30
LAYERS = {"conv5": (2, 3, 3), "fc7": (50,)}


def plan(weights: str = "1234") -> Plan:
    table = RowTable(
        tuple(f"class/ä{row}.jpg" for row in range(COUNT)),
        np.zeros(COUNT, np.int32),
        np.zeros(COUNT, np.uint8),
    )
    provenance = {"fingerprint": {"weights": weights}}
    return Plan(table, ("class",), LAYERS, FeatureDtype.FLOAT32, provenance)


def values(rows: np.ndarray) -> dict[str, Any]:
    return {
        name: np.sqrt(
            rows[:, None] * 1000.0 + np.arange(int(np.prod(shape))), dtype=np.float32
        ).reshape(len(rows), *shape)
        for name, shape in LAYERS.items()
    }


def whole(path: Path) -> FeatureWriter:
    return FeatureStore.create(path, plan())


def write_part(path: Path, rank: int, ranks: int, done: int, weights: str = "1234") -> Path:
    """The first ``done`` rows of a rank's share, the last of them bad."""
    rows = rows_of_rank(np.arange(COUNT), 4, rank, ranks)
    with PartWriter(part_path(path, rank, ranks), plan(weights), rows) as writer:
        assert writer.pending().tolist() == rows.tolist()
        writer.append(rows[: done - 1], values(rows[: done - 1]))
        writer.mark(int(rows[done - 1]), Status.UNREADABLE, "no image, but a ü")
        assert writer.pending().tolist() == rows[done:].tolist()
    return writer.partial


def nothing() -> None:
    pass


@pytest.mark.parametrize("count", [0, 1, 2, 5, 7, 64, 129])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("size", [1, 4, 64])
def test_every_row_is_of_one_rank(count: int, ranks: int, size: int) -> None:
    rows = np.arange(count) * 3
    shares = [rows_of_rank(rows, size, rank, ranks) for rank in range(ranks)]
    assert sorted(np.concatenate(shares).tolist()) == rows.tolist()
    assert count < ranks or all(share.size for share in shares)
    assert all((np.diff(share) > 0).all() for share in shares)


def test_parts_of_any_number_of_ranks_are_taken_in(tmp_path: Path) -> None:
    path = tmp_path / "a [b].h5"
    places = [write_part(path, 1, 2, 6), write_part(path, 2, 3, 5), write_part(path, 0, 3, 3)]
    assert parts_beside(path) == sorted(places)
    unborn = places[0].with_name(places[0].name + ".new")
    unborn.write_bytes(b"cut short")
    other = tmp_path / "other.h5.part-0-of-2.partial"
    other.write_bytes(b"of another file")
    taken: set[int] = set()
    for rank, ranks, done in ((1, 2, 6), (2, 3, 5), (0, 3, 3)):
        taken |= set(rows_of_rank(np.arange(COUNT), 4, rank, ranks)[:done].tolist())
    with whole(path) as writer:
        take_in(writer, between=nothing)
        pending = writer.pending()
        assert set(pending.tolist()) == set(range(COUNT)) - taken
        writer.append(pending, values(pending))
        writer.finish()
    assert sorted(tmp_path.iterdir()) == sorted([path, other])
    with FeatureStore.open(path) as store:
        rows = store.rows()
        assert len(store.reasons) == 3
        assert set(store.reasons.values()) == {"no image, but a \\xfc"}
        assert set(rows.tolist()) == set(range(COUNT)) - store.reasons.keys()
        assert store.numbers.tolist() == list(range(COUNT))
        for layer, expected in values(rows).items():
            np.testing.assert_array_equal(store.values(layer, rows), expected)


def test_stopped_between_two_blocks_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexkit.features.parts.BLOCK_BYTES", 600)  # two rows
    path = tmp_path / "F.h5"
    part = write_part(path, 0, 2, 10)

    def stop() -> None:
        raise KeyboardInterrupt

    for remaining in (28, 26):
        with whole(path) as writer:
            with pytest.raises(KeyboardInterrupt):
                take_in(writer, between=stop)
            assert writer.pending().size == remaining
        assert part.exists()
    with whole(path) as writer:
        take_in(writer, between=nothing)
        assert writer.pending().size == 20
    assert not part.exists()


def test_a_part_with_other_settings_is_refused_or_thrown_away(tmp_path: Path) -> None:
    part = write_part(tmp_path / "F.h5", 1, 2, 6, weights="5678")
    with whole(tmp_path / "F.h5") as writer:
        with pytest.raises(FileMismatch, match="other settings"):
            take_in(writer, between=nothing)
        assert part.exists()
        take_in(writer, discard=True, between=nothing)
        assert not part.exists()
        assert writer.pending().size == COUNT


def test_a_truncated_part_is_named(tmp_path: Path) -> None:
    part = write_part(tmp_path / "F.h5", 1, 2, 6)
    part.write_bytes(part.read_bytes()[:2000])
    with whole(tmp_path / "F.h5") as writer:
        with pytest.raises(DamagedFile, match=r"part-1-of-2\.partial") as caught:
            take_in(writer, between=nothing)
        assert "delete" in caught.value.hint
        part.unlink()
        take_in(writer, between=nothing)
        assert writer.pending().size == COUNT


def test_a_part_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    part = write_part(tmp_path / "F.h5", 1, 2, 6)
    with part.open("rb") as held, whole(tmp_path / "F.h5") as writer:
        fcntl.flock(held, fcntl.LOCK_EX)  # as HDF5 does in the process that writes
        with pytest.raises(UsageError, match="in use by another process"):
            take_in(writer, between=nothing)
    assert part.exists()
