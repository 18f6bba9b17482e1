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
from alexkit.probes.objective import Array, Problems, RowBlocks, Solution
from alexkit.probes.primal import Streamed

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
        report: told which way was chosen, how far a long solution is, and where float32 did
            not reach a gap.

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
        report: Reporter = silent,
    ) -> None:
        n, d = x.shape
        device = torch.device(device)
        self.constant, self.report, self.regime = bias, report, regime_of(n, d)
        self._way: Gram | Streamed
        if self.regime == "gram":
            rule = f"{n} rows; for every C, fold and class"
            report(Chosen("solver", "Gram matrix made once", rule))
            self._way = Gram(
                x, bias=bias, dtype=dtype, device=device, problems=problems, report=report
            )
            squares = self._way.sizes
        else:
            report(Chosen("solver", "rows read in blocks", f"{n} rows of {d} numbers"))
            self._way = Streamed(x, bias=bias, dtype=dtype, device=device, report=report)
            squares = self._way.moments.diagonal()
        if not bool(torch.isfinite(squares).all()):
            raise DataError(
                "the rows to be fitted are not all finite numbers of a usable size",
                hint="leave out rows with NaN or infinity, or scale the features",
            )

    def solve(self, problems: Problems, *, gap: float, start: Array | None = None) -> Solution:
        """Solutions in the solver's own terms, of which ``start`` is one at another C.

        Args:
            gap: the relative duality gap to reach. Where rounding does not allow it, the best
                there is comes back, with its true gap.
        """
        with one_torch_thread():
            found = self._way.solve(problems, gap=gap, start=start)
        if found.wide.any():
            told = f"{int(found.wide.sum())} of {found.wide.size} problems were solved in"
            self.report(Note(f"{told} float64: float32 did not reach the gap"))
        return found

    def decisions(self, terms: Array, rows: npt.NDArray[np.int64]) -> Array:
        """(m, rows) float64 decision values of some of the solver's own rows, ascending."""
        return self._way.decisions(terms, rows)

    def weights(self, terms: Array) -> tuple[Array, Array]:
        """(m, d) weights and (m) intercepts."""
        u = self._way.weights(terms)
        if self.constant == 0.0:
            return u, np.zeros(len(u))
        return u[:, :-1], u[:, -1] * self.constant
