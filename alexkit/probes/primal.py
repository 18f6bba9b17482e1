"""Many rows: problems are solved in terms of their weights, with rows read in blocks.

Nonlinear conjugate gradients (Polak–Ribière) with an exact line search. The preconditioner is
the Hessian in which all rows are inside the margin, I + 2C X̃ᵀX̃: (d, d), made in one pass over
the rows and shared by every problem at one C. A step reads the rows twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import get_lapack_funcs

from alexkit.events import Reporter, StageAdvanced, StageFinished, StageStarted, silent
from alexkit.probes.descent import product
from alexkit.probes.objective import (
    Array,
    Certificate,
    Problems,
    RowBlocks,
    certify,
    lifted,
)

BLOCK_BYTES = 32 << 20
"""Of rows that are read at a time."""
MEMORY = 1 << 30
"""Bytes for what is kept of every row, of the problems solved at a time."""
SEARCHES = 3
"""Newton steps of a line search."""
MAX_STEPS = 1000
STOPPED = 0.8
"""Share of the asked gap at which the search stops; the rest is for its rounding."""
STALLED = 20
"""Steps in which no problem came nearer: rounding allows no more."""
KEPT = 0.8
"""Problems that are done are left out once fewer than this share go on."""
PERCENT = 100


@dataclass(frozen=True)
class PrimalSolution:
    """m solutions.

    Attributes:
        u: (m, d + 1) float64 weights and, last, the intercept divided by the constant beside
            every row; (m, d) without an intercept.
        certificate: of these very weights.
        steps: (m) int64, each two products with all rows.
        wide: (m) bool, whether float32 did not reach the gap and float64 was used.
    """

    u: Array
    certificate: Certificate
    steps: npt.NDArray[np.int64]
    wide: npt.NDArray[np.bool_]


@dataclass
class Lines:
    """What is kept of every row, for the problems of one group: (m, n) of the working type."""

    margin: torch.Tensor
    slope: torch.Tensor

    def keep(self, which: torch.Tensor) -> None:
        self.margin = self.margin[which]
        self.slope = self.slope[which]


class Streamed:
    """Rows that are read in blocks, and solutions of problems on them.

    Args:
        x: (n, d), finite; read in order, in blocks, some ten to sixty times.
        bias: the constant put beside every row; 0 for no intercept.
        dtype: of the products that search; what is certified is always float64.
        device: where.
        memory: bytes for what is kept of every row; problems are solved in groups that fit.
        report: told how far it is, in percent of the way from a gap of 1 to the one asked,
            on the scale of its logarithm.
    """

    def __init__(
        self,
        x: RowBlocks,
        *,
        bias: float,
        dtype: torch.dtype,
        device: torch.device,
        memory: int = MEMORY,
        report: Reporter = silent,
    ) -> None:
        self.x, self.bias, self.dtype, self.device = x, bias, dtype, device
        self.report = report
        n, d = x.shape
        self.size = d + (bias != 0)
        self.block = max(1, BLOCK_BYTES // (4 * self.size))
        self.width = max(1, memory // (3 * dtype.itemsize * n))
        self.moments = torch.zeros(self.size, self.size, dtype=torch.float64, device=device)
        for _, part in self._blocks(dtype):
            self.moments += product(part.T.contiguous(), part).double()

    def solve(
        self, problems: Problems, *, gap: float, start: Array | None = None
    ) -> PrimalSolution:
        """Solves until each relative duality gap is at most ``gap``, or rounding forbids more.

        What float32 does not bring there goes on in float64.

        Args:
            start: (m, d + 1) weights to begin from, e.g. a solution at a smaller C.
        """
        m, began = len(problems), time.perf_counter()
        u = np.zeros((m, self.size)) if start is None else start.copy()
        primal, dual, steps = np.zeros(m), np.zeros(m), np.zeros(m, np.int64)
        wide = np.zeros(m, bool)
        self.report(StageStarted("svm", PERCENT, "percent"))
        for c in np.unique(problems.c):
            alike = np.flatnonzero(problems.c == c)
            inverse = self._inverse(2 * c * float(np.mean(problems.weights)))
            done = int((problems.c < c).sum())
            for which in np.array_split(alike, -(-alike.size // self.width)):

                def tell(part: float, done: int = done, count: int = which.size) -> None:
                    share = (done + part * count) / m
                    self.report(StageAdvanced("svm", int(PERCENT * share)))

                found = self._solve(problems.some(which), u[which], inverse, gap, tell)
                for place, value in zip((u, primal, dual, steps, wide), found, strict=True):
                    place[which] = value
                done += which.size
        self.report(StageFinished("svm", PERCENT, time.perf_counter() - began))
        return PrimalSolution(u, Certificate(primal, dual), steps, wide)

    def decisions(self, u: Array, rows: npt.NDArray[np.int64]) -> Array:
        """(m, rows) float64 decision values of some rows, ascending; reads all of them."""
        found = np.empty((len(u), len(rows)))
        for where in self._slices():
            at = slice(*np.searchsorted(rows, (where.start, where.stop)))
            part = lifted(self.x[where], self.bias)
            found[:, at] = u @ part[rows[at] - where.start].T
        return found

    def _solve(
        self,
        problems: Problems,
        start: Array,
        inverse: torch.Tensor,
        gap: float,
        tell: Callable[[float], None],
    ) -> tuple[npt.NDArray[Any], ...]:
        """Weights, primal and dual values, steps, and whether float64 was needed; (m)."""
        m, u = len(problems), start.copy()
        primal, dual, steps = np.full(m, np.inf), np.zeros(m), np.zeros(m, np.int64)
        wide, left = np.zeros(m, bool), np.arange(m)
        for dtype in dict.fromkeys((self.dtype, torch.float64)):
            if dtype != self.dtype:
                wide[left] = True
            width = max(1, self.width * self.dtype.itemsize // dtype.itemsize)
            for which in (left[i : i + width] for i in range(0, left.size, width)):
                part = problems.some(which)
                begun = torch.from_numpy(u[which]).to(self.device, dtype)
                ended, count = self._descend(part, begun, inverse.to(dtype), gap, tell)
                weights = ended.double().cpu().numpy()
                found = certify(self.x, part, weights, bias=self.bias, block=self.block)
                steps[which] += count.cpu().numpy()
                dual[which] = np.maximum(dual[which], found.dual)
                better = found.primal <= primal[which]
                u[which[better]] = weights[better]
                primal[which[better]] = found.primal[better]
            left = np.flatnonzero(Certificate(primal, dual).gaps > gap)
            if not left.size:
                break
        return u, primal, dual, steps, wide

    def _descend(
        self,
        problems: Problems,
        u: torch.Tensor,
        inverse: torch.Tensor,
        gap: float,
        tell: Callable[[float], None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Nearer weights (m, d + 1), and steps (m).

        With a = 2 c ξ of some weights, P - D(a) is half the squared length of the gradient.
        """
        m, n = len(problems), self.x.shape[0]
        result, steps = u.clone(), torch.zeros(m, dtype=torch.int64, device=self.device)
        at = torch.arange(m, device=self.device)
        lines = Lines(*(torch.ones(m, n, dtype=u.dtype, device=self.device) for _ in "ab"))
        if bool(u.any()):
            self._project(problems, u, lines)
            lines.margin = 1 - lines.slope
        step, before, energy = (
            torch.zeros_like(u),
            torch.zeros_like(u),
            torch.ones_like(u[:, 0]),
        )
        least, stalled = torch.full_like(energy, math.inf), 0
        for _ in range(MAX_STEPS):
            gradient, primal = self._gradient(problems, u, lines)
            reached = 0.5 * (gradient * gradient).sum(1) / torch.where(primal > 0, primal, 1.0)
            better = reached < least[at]
            result[at[better]], least[at] = u[better], torch.minimum(reached, least[at])
            stalled = 0 if bool(better.any()) else stalled + 1
            todo = least[at] > STOPPED * gap
            worst = float(least.max())
            tell(min(1.0, max(0.0, math.log(max(worst, 1e-300)) / math.log(STOPPED * gap))))
            if not bool(todo.any()) or stalled == STALLED:
                break
            z = product(gradient, inverse)
            now = (gradient * z).sum(1)
            turn = ((now - (before * z).sum(1)) / energy).clamp_min(0)[:, None]
            step = turn * step - z  # the first is -z
            before, energy = gradient, torch.where(now > 0, now, 1.0)
            if int(todo.sum()) < KEPT * len(todo):
                problems, at, u = problems.some(todo.cpu().numpy()), at[todo], u[todo]
                step, before, energy = step[todo], before[todo], energy[todo]
                lines.keep(todo)
            self._project(problems, step, lines)
            t = self._search(problems, u, step, lines)
            u = u + t[:, None] * step
            lines.margin.addcmul_(t[:, None], lines.slope, value=-1)
            steps[at] += 1
        return result, steps

    def _gradient(
        self, problems: Problems, u: torch.Tensor, lines: Lines
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, d + 1) gradients and (m) objectives."""
        gradient, primal = u.clone(), 0.5 * (u * u).sum(1)
        for where, part in self._blocks(u.dtype):
            signs, twice = self._block(problems, where, u.dtype)
            slack = lines.margin[:, where].clamp_min(0)
            pulled = twice.mul_(slack)
            primal += 0.5 * (pulled * slack).sum(1)
            gradient -= product(pulled.mul_(signs), part)
        return gradient, primal

    def _project(self, problems: Problems, step: torch.Tensor, lines: Lines) -> None:
        """Writes how fast each row's s u·x̃ grows along ``step`` into ``lines.slope``."""
        for where, part in self._blocks(step.dtype):
            signs, _ = self._block(problems, where, step.dtype)
            torch.mul(product(step, part.T), signs, out=lines.slope[:, where])

    def _search(
        self, problems: Problems, u: torch.Tensor, step: torch.Tensor, lines: Lines
    ) -> torch.Tensor:
        """(m) how far along ``step``: Newton's method on a piecewise quadratic function."""
        linear, quadratic = (u * step).sum(1), (step * step).sum(1)
        t = torch.zeros_like(linear)
        for _ in range(SEARCHES):
            above, below = -linear, quadratic.clone()
            for where in self._slices():
                _, twice = self._block(problems, where, u.dtype)
                margin, slope = lines.margin[:, where], lines.slope[:, where]
                twice *= torch.addcmul(margin, t[:, None], slope, value=-1) > 0
                weighted = twice.mul_(slope)
                above += (weighted * margin).sum(1)
                below += weighted.mul_(slope).sum(1)
            t = above / torch.where(below > 0, below, 1.0)
        return t

    def _inverse(self, scale: float) -> torch.Tensor:
        matrix = scale * self.moments
        matrix.diagonal().add_(1)
        return inverted(matrix).to(self.dtype)

    def _block(
        self, problems: Problems, rows: slice, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        signs, costs = (
            torch.from_numpy(value).to(self.device)
            for value in problems.block(rows, str(dtype)[6:])
        )
        return signs, costs.mul_(2)

    def _slices(self) -> list[slice]:
        n = self.x.shape[0]
        return [slice(i, min(i + self.block, n)) for i in range(0, n, self.block)]

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[slice, torch.Tensor]]:
        d = self.x.shape[1]
        for rows in self._slices():
            part = torch.empty(rows.stop - rows.start, self.size, dtype=dtype)
            part[:, :d] = torch.from_numpy(np.ascontiguousarray(self.x[rows]))
            part[:, d:] = self.bias
            yield rows, part.to(self.device)


def inverted(matrix: torch.Tensor) -> torch.Tensor:
    """The inverse of a positive definite matrix, which may be overwritten."""
    if matrix.device.type != "cpu":
        return torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    factorise, invert = get_lapack_funcs(("potrf", "potri"), (matrix.numpy(),))
    factor, failed = factorise(matrix.numpy().T, lower=True, overwrite_a=True)
    assert failed == 0
    found, failed = invert(factor, lower=True, overwrite_c=True)
    assert failed == 0
    lower = torch.from_numpy(found.T).triu_()  # LAPACK wrote one half
    diagonal = lower.diagonal().clone()
    lower = lower + lower.T
    lower.diagonal().copy_(diagonal)
    return lower
