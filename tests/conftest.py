"""Shared fixtures: small photos made here, the real ones where they are at hand,
and a disk so small that it can be filled."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from alexkit.choices import FeatureDtype
from alexkit.features.layout import Plan, RowTable, Status
from alexkit.features.store import FeatureStore

Capsys = pytest.CaptureFixture[str]


class Clock:
    """A clock that a test moves; it may stand in the place of the module ``time``."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    monotonic = perf_counter = __call__

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def textured_rgb(seed: int, height: int = 96, width: int = 128) -> npt.NDArray[np.uint8]:
    """A smooth coloured pattern with some noise, different for each seed; (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for _ in range(3):
        fx, fy, phase = *rng.uniform(0.02, 0.25, 2).tolist(), rng.uniform(0, 6.28)
        planes.append(np.sin(fx * x + fy * y + phase))
    image = 127.5 + 100 * np.stack(planes, axis=-1) + rng.normal(0, 8, (height, width, 3))
    return image.clip(0, 255).astype(np.uint8)


def photos_in(root: Path, counts: Mapping[str, int]) -> Path:
    """Writes ``{relative folder: number of JPEG photos}`` under a root and returns the root.

    Photos of one class, the last part of the folder, share a colour cast, so that a
    classifier can tell classes apart.
    """
    classes = sorted({Path(folder).name for folder in counts})
    for which, (folder, count) in enumerate(sorted(counts.items())):
        place = root / folder
        place.mkdir(parents=True, exist_ok=True)
        cast = np.array(
            [(70, 0, 0), (0, 70, 0), (0, 0, 70)][classes.index(Path(folder).name) % 3]
        )
        for i in range(count):
            pixels = textured_rgb(1000 * which + i).astype(int) // 2 + cast
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            image.save(place / f"photo{i:03d}.jpg", quality=90)
    return root


def feature_file(
    path: Path,
    layers: Mapping[str, npt.NDArray[Any]],
    *,
    paths: Sequence[str] | None = None,
    labels: Sequence[int] | None = None,
    splits: Sequence[int] | None = None,
    classes: tuple[str, ...] = (),
    bad: Mapping[int, str] | None = None,
    dtype: FeatureDtype = FeatureDtype.FLOAT32,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a finished feature file of layers, name -> (N, …), and returns its path.

    Rows are called img000.jpg and so on, have no label and no split; ``bad`` are those that
    cannot be read, with the reason.
    """
    count, bad = len(next(iter(layers.values()))), bad or {}
    rows = RowTable(
        tuple(paths or (f"img{row:03d}.jpg" for row in range(count))),
        np.array([-1] * count if labels is None else labels, np.int32),
        np.array([0] * count if splits is None else splits, np.uint8),
    )
    shapes = {name: values.shape[1:] for name, values in layers.items()}
    plan = Plan(rows, classes, shapes, dtype, {"fingerprint": {}, **(provenance or {})})
    with FeatureStore.create(path, plan) as writer:
        good = np.setdiff1d(np.arange(count), list(bad))
        writer.append(good, {k: v[good].astype(dtype.value) for k, v in layers.items()})
        for row, reason in bad.items():
            writer.mark(row, Status.UNREADABLE, reason)
        writer.finish()
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where indexes are remembered: a folder of the test's own, which is not there yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "alexkit" / "indexes"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real photos and weights named by ``ALEXKIT_TEST_DATA``."""
    value = os.environ.get("ALEXKIT_TEST_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("ALEXKIT_TEST_DATA does not name the folder of real photos and weights")
    return Path(value).resolve()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB; needs root, as in a container."""
    with disk_of(tmp_path, "2m") as place:
        yield place


@pytest.fixture
def filling_disk(tmp_path: Path) -> Iterator[Path]:
    """One of 160 MiB: room for a small network's run, and soon full."""
    with disk_of(tmp_path, "160m") as place:
        yield place


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    """Another process has an HDF5 file open for writing."""
    program = (
        "import h5py, sys; f = h5py.File(sys.argv[1], 'r+'); print(1, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        try:
            yield
        finally:
            other.communicate("\n")


@contextmanager
def disk_of(tmp_path: Path, size: str) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
