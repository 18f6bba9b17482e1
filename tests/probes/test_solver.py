"""Both ways to the optimum: against each other, known optima, and rows that are awkward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from alexkit.events import Chosen, Event, StageAdvanced, StageFinished, StageStarted
from alexkit.probes.gram import Gram
from alexkit.probes.objective import Problems, certify, one_vs_rest
from alexkit.probes.primal import Streamed
from alexkit.probes.solver import Solver, regime_of
from tests.probes.conftest import MakeProblem
from tests.probes.test_objective import orthogonal_problem

CPU = torch.device("cpu")
WAYS = ("gram", "primal")
EXACT = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def solve(
    way: str, x: Any, problems: Problems, *, gap: float, bias: float = 1.0, **options: Any
) -> tuple[Any, Any, Any]:
    """Weights (m, d + 1) with the bias's last, the certificate, and the steps."""
    options = {"dtype": torch.float64, "device": CPU} | options
    if way == "gram":
        kernel = Gram(x, bias=bias, problems=len(problems), **options)
        found = kernel.solve(problems, gap=gap)
        return kernel.weights(found.terms), found.certificate, found.steps
    other = Streamed(x, bias=bias, **options).solve(problems, gap=gap)
    return other.terms, other.certificate, other.steps


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("c", [1e-4, 0.1, 1.0, 100.0])
@EXACT
def test_the_certificate_bounds_the_known_optimum(
    way: str, c: float, dtype: torch.dtype
) -> None:
    x, signs, *_, minimum = orthogonal_problem(c)
    problems = Problems.of(signs.astype(np.int8), c)
    for gap in (0.3, 1e-5):
        _, found, _ = solve(way, x, problems, gap=gap, dtype=dtype)
        assert (found.dual <= minimum * (1 + 1e-12)).all()
        assert (found.primal >= minimum * (1 - 1e-12)).all()
        assert found.gap <= gap


@pytest.mark.parametrize("way", WAYS)
@EXACT
def test_folds_classes_weights_and_several_c_at_once(
    make_problem: MakeProblem, way: str, dtype: torch.dtype
) -> None:
    x, y = make_problem(90, 40, 3)
    rng = np.random.default_rng(0)
    folds, weights = rng.permutation(90) % 3, rng.uniform(0, 2, 90)
    factors = np.array([[1.0, 2.0], [1.0, 1.0], [0.5, 3.0]])
    signs = one_vs_rest(y, np.arange(3))
    whole = Problems.of(signs, 0.05, factors=factors, weights=weights, folds=folds)
    whole.c[4:] = 0.5
    u, found, steps = solve(way, x, whole, gap=1e-5, dtype=dtype)
    assert found.gap <= 1e-5
    assert steps.shape == (9,)
    again = certify(x, whole, u, bias=1.0, block=7)
    np.testing.assert_allclose(again.primal, found.primal, rtol=1e-9)
    for i in (1, 8):
        inside = folds != whole.held_out[i]
        alone = Problems.of(
            signs[inside][:, whole.target[[i]]],
            whole.c[i],
            factors=factors[whole.target[[i]]],
            weights=weights[inside],
        )
        _, one, _ = solve(way, x[inside], alone, gap=1e-8)
        np.testing.assert_allclose(found.primal[i], one.primal[0], rtol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("n", "d"), [(150, 60), (400, 20)])
def test_float64_goes_on_where_float32_does_not_reach_the_gap(
    make_problem: MakeProblem, way: str, n: int, d: int
) -> None:
    x, y = make_problem(n, d, 3)
    c = 1000 / float((x**2).sum(axis=1).mean())
    problems = Problems.of(one_vs_rest(y, np.arange(3)), c)
    options = {"bias": 1.0, "dtype": torch.float32, "device": CPU}
    solver: Any = Gram(x, problems=3, **options) if way == "gram" else Streamed(x, **options)
    found = solver.solve(problems, gap=1e-11)
    assert found.certificate.gap <= 1e-11
    assert found.wide.any()
    assert not solver.solve(problems.at(c / 1e4), gap=1e-2).wide.any()


AWKWARD = {
    "one column": np.linspace(-1, 1, 12)[:, None],
    "two rows": np.array([[1.0, 2.0], [3.0, -1.0]]),
    "rows of zeros": np.zeros((10, 3)),
    "a constant column": np.c_[np.ones(12), np.linspace(-1, 1, 12)],
    "all rows the same": np.ones((10, 4)),
    "large numbers": 1e6 * np.random.default_rng(0).normal(size=(12, 4)),
    "small numbers": 1e-6 * np.random.default_rng(0).normal(size=(12, 4)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_rows(way: str, bias: float, name: str) -> None:
    x = AWKWARD[name]
    problems = Problems.of(one_vs_rest(np.arange(len(x)) % 2, np.arange(2)), 1.0)
    u, found, _ = solve(way, x, problems, gap=1e-6, bias=bias)
    assert found.gap <= 1e-6
    again = certify(x, problems, u, bias=bias)
    np.testing.assert_allclose(again.primal, found.primal, rtol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_a_start_at_another_c_saves_steps(make_problem: MakeProblem, way: str) -> None:
    x, y = make_problem(90, 200, 3)
    problems = Problems.of(one_vs_rest(y, np.arange(3)), 0.02)
    options = {"bias": 1.0, "dtype": torch.float64, "device": CPU}
    solver: Any = Gram(x, problems=3, **options) if way == "gram" else Streamed(x, **options)
    first = solver.solve(problems, gap=1e-8)
    again = solver.solve(problems, gap=1e-7, start=first.terms)
    assert again.steps.max() < first.steps.max()
    np.testing.assert_allclose(again.certificate.primal, first.certificate.primal, rtol=1e-7)


def test_rows_of_a_file_in_groups_of_problems(
    make_problem: MakeProblem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexkit.probes.primal.MEMORY", 2 * 3 * 4 * 700)
    x, y = make_problem(700, 20, 4)
    problems = Problems.of(one_vs_rest(y, np.arange(4)), 0.05)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["x"] = x.astype(np.float32)
    events: list[Event] = []
    with h5py.File(tmp_path / "rows.h5") as file:
        solver = Solver(file["x"], problems=4, report=events.append)
        found = solver.solve(problems, gap=1e-5)
        some = np.array([0, 3, 699])
        values = solver.decisions(found.terms, some)
    assert solver.regime == "primal"
    assert found.certificate.gap <= 1e-5
    weights, bias = solver.weights(found.terms)
    known = weights @ x[some].T + bias[:, None]
    np.testing.assert_allclose(values, known, atol=1e-5)
    assert isinstance(events[0], Chosen)
    assert isinstance(events[1], StageStarted)
    done = [event.done for event in events if isinstance(event, StageAdvanced)]
    assert done == sorted(done)
    assert any(0 < part < 100 for part in done)
    assert isinstance(events[-1], StageFinished)


def test_which_way() -> None:
    assert regime_of(3_060, 9_216) == "gram"
    assert regime_of(400, 2) == "gram"
    assert regime_of(5_000, 512) == "primal"
    assert regime_of(100_000, 4_096) == "primal"
    assert regime_of(20_000, 40_000) == "primal"


def test_torchs_threads_are_given_back(make_problem: MakeProblem) -> None:
    x, y = make_problem(30, 10, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Solver(x, problems=2).solve(Problems.of(one_vs_rest(y, np.arange(2)), 1.0), gap=1e-3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
