"""The feature file in Octave and R, by the examples, where these are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from alexkit.choices import FeatureDtype
from alexkit.features.store import FeatureStore
from tests.conftest import feature_file

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def features(folder: Path, dtype: FeatureDtype, name: str = "bees") -> Path:
    """Seven rows of a layer of maps, the fourth without features."""
    values = np.random.default_rng(1).normal(size=(7, 3, 2, 4)).astype(dtype.value)
    return feature_file(
        folder / "F.h5",
        {"conv5": values},
        paths=[f"{name}/{row}.jpg" for row in range(7)],
        labels=[0, 1, 1, 0, 1, -1, 1],
        splits=[1] * 7,
        classes=("ants", name),
        bad={3: "größer than a file can be"},
        dtype=dtype,
    )


def octave(code: str) -> str:
    if shutil.which("octave") is None:
        pytest.skip("there is no Octave")
    words = ["octave", "--no-gui", "--norc", "--quiet", "--eval", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert "HDF5-DIAG" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected(path: Path) -> str:
    with FeatureStore.open(path) as store:
        mean = store.matrix("conv5").mean(dtype=np.float64)
    return f"6 rows, 24 columns, mean {mean:.6f}\nants: 1\nbees: 4\n"


@pytest.mark.parametrize("dtype", FeatureDtype)
def test_octave_reads_it_all(tmp_path: Path, dtype: FeatureDtype) -> None:
    path = features(tmp_path, dtype)
    told = octave(f"addpath('{EXAMPLES}'); read_features('{path}', 'conv5')")
    assert told == expected(path)


def test_octave_reads_the_dimensions_reversed(tmp_path: Path) -> None:
    path = features(tmp_path, FeatureDtype.FLOAT32)
    with FeatureStore.open(path) as store:
        value = store.values("conv5", np.array([6]))[0, 2, 1, 3]
    told = octave(
        f"load('{path}'); x = features.conv5; disp(size(x)); printf('%.6f', x(4, 2, 3, 7))"
    )
    assert told.split() == ["4", "2", "3", "7", f"{value:.6f}"]


def test_octave_reads_the_features_beside_other_letters(tmp_path: Path) -> None:
    path = features(tmp_path, FeatureDtype.FLOAT32, name="Käfer")
    told = octave(f"load('{path}', 'features'); disp(size(features.conv5))")
    assert told.split() == ["4", "2", "3", "7"]


@pytest.mark.parametrize("dtype", FeatureDtype)
def test_r_reads_it_all(tmp_path: Path, dtype: FeatureDtype) -> None:
    if shutil.which("Rscript") is None:
        pytest.skip("there is no R")
    there = ["Rscript", "-e", "stopifnot(requireNamespace('rhdf5'))"]
    if subprocess.run(there, capture_output=True).returncode:
        pytest.skip("R has no rhdf5")
    path = features(tmp_path, dtype)
    words = ["Rscript", str(EXAMPLES / "read_features.R"), str(path), "conv5"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert done.stdout == expected(path)
