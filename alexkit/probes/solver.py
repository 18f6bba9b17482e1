"""The linear SVM's solver: two ways to the same optimum, chosen by the size of the rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from alexkit.errors import DataError
from alexkit.events import Chosen, Note, Reporter, silent
from alexkit.probes.gram import Gram
from alexkit.probes.objective import Array, Certificate, Problems, RowBlocks
from alexkit.probes.primal import MEMORY, Streamed

Regime = Literal["gram", "primal"]

GRAM_ROWS = 15_000
"""Rows whose Gram matrix is made: 1.8 GB in float64, and half of that in float32."""
SMALL = 500
"""Rows so few that their Gram matrix costs nothing, however few columns there are."""


def regime_of(n: int, d: int) -> Regime:
    """``gram`` for few rows, or for at most twice as many as columns; else ``primal``."""
    return "gram" if n <= min(GRAM_ROWS, max(2 * d, SMALL)) else "primal"


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch adds and compares on one thread meanwhile: the products are numpy's, and threads of
    two libraries that wait for work by turning in circles take each other's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Solver:
    """Some rows, made ready once for any number of problems.

    Args:
        x: (n, d), finite: an array, or anything with ``shape`` that gives blocks of rows.
        problems: how many will be solved in all.
        bias: the constant put beside every row, liblinear's B and LinearSVC's
            ``intercept_scaling``; 0 for no intercept.
        dtype: of the products that search for the optimum; certificates are float64.
        device: where.
        memory: bytes for what is kept of every row where rows are read in blocks.
        report: told which way was chosen, how far a long solution is, and where float32 did
            not reach a gap.

    Attributes:
        wide: whether float64 was used because float32 did not reach a gap.

    Raises:
        DataError: a number is not finite, or too large to be squared in ``dtype``.
    """

    def __init__(
        self,
        x: RowBlocks,
        *,
        problems: int,
        bias: float = 1.0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        memory: int = MEMORY,
        report: Reporter = silent,
    ) -> None:
        n, d = x.shape
        device = torch.device(device)
        self.x, self.constant, self.regime = x, bias, regime_of(n, d)
        self.report, self.wide = report, False
        self._kernel: Gram | None = None
        self._streamed: Streamed | None = None
        if self.regime == "gram":
            rule = f"{n} rows; for every C, fold and class"
            report(Chosen("solver", "Gram matrix made once", rule))
            self._kernel = Gram(
                x, bias=bias, dtype=dtype, device=device, problems=problems, report=report
            )
            squares = self._kernel.sizes
        else:
            report(Chosen("solver", "rows read in blocks", f"{n} rows of {d} numbers"))
            self._streamed = Streamed(
                x, bias=bias, dtype=dtype, device=device, memory=memory, report=report
            )
            squares = self._streamed.moments.diagonal()
        if not bool(torch.isfinite(squares).all()):
            raise DataError(
                "the rows to be fitted are not all finite numbers of a usable size",
                hint="leave out rows with NaN or infinity, or scale the features",
            )

    def solve(
        self, problems: Problems, *, gap: float, start: Array | None = None
    ) -> tuple[Array, Certificate, npt.NDArray[np.int64]]:
        """Solutions in the solver's own terms, of which ``start`` is one at another C.

        Args:
            gap: the relative duality gap to reach. Where rounding does not allow it, the best
                there is comes back, with its true gap.
        """
        with one_torch_thread():
            if self._kernel is not None:
                found = self._kernel.solve(problems, gap=gap, start=start)
                self._tell(found.wide)
                return found.beta, found.certificate, found.steps
            assert self._streamed is not None
            other = self._streamed.solve(problems, gap=gap, start=start)
            self._tell(other.wide)
            return other.u, other.certificate, other.steps

    def decisions(self, terms: Array, rows: npt.NDArray[np.int64]) -> Array:
        """(m, rows) float64 decision values of some of the solver's own rows, ascending."""
        if self._kernel is not None:
            return self._kernel.decisions(terms, rows)
        assert self._streamed is not None
        return self._streamed.decisions(terms, rows)

    def weights(self, terms: Array) -> tuple[Array, Array]:
        """(m, d) weights and (m) intercepts."""
        u = terms if self._kernel is None else self._kernel.weights(terms)
        if self.constant == 0.0:
            return u, np.zeros(len(u))
        return u[:, :-1], u[:, -1] * self.constant

    def _tell(self, wide: npt.NDArray[np.bool_]) -> None:
        if wide.any():
            self.wide = True
            told = f"{int(wide.sum())} of {wide.size} problems were solved in float64"
            self.report(Note(f"{told}: float32 did not reach the gap"))
