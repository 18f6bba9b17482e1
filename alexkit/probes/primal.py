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

import numpy as np
import numpy.typing as npt
import torch

from alexkit.events import Reporter, StageAdvanced, StageFinished, StageStarted, silent
from alexkit.probes.descent import CHECKED, inverted, product
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
MEMORY = 2 << 30
"""Bytes for what is kept of every row, of the problems solved at a time."""
SEARCHES = 3
"""Newton steps of a line search."""
MAX_STEPS = 300
PERCENT = 100


@dataclass(frozen=True)
class PrimalSolution:
    """m solutions.

    Attributes:
        u: (m, d + 1) float64 weights and, last, the intercept divided by the constant beside
            every row; (m, d) without an intercept.
        certificate: of these very weights.
        steps: (m) int64, each two products with all rows.
    """

    u: Array
    certificate: Certificate
    steps: npt.NDArray[np.int64]


@dataclass
class Lines:
    """What is kept of every row, for the problems of one group: (m, n) of the working type."""

    margin: torch.Tensor
    slope: torch.Tensor


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
        for _, part in self._blocks():
            self.moments += product(part.T.contiguous(), part).double()

    def solve(
        self, problems: Problems, *, gap: float, start: Array | None = None
    ) -> PrimalSolution:
        """Solves until each relative duality gap is at most ``gap``, or :data:`MAX_STEPS`.

        Args:
            start: (m, d + 1) weights to begin from, e.g. a solution at a smaller C.
        """
        m, began = len(problems), time.perf_counter()
        u = np.zeros((m, self.size)) if start is None else start.copy()
        primal, dual, steps = np.zeros(m), np.zeros(m), np.zeros(m, np.int64)
        self.report(StageStarted("svm", PERCENT, "percent"))
        for c in np.unique(problems.c):
            alike = np.flatnonzero(problems.c == c)
            inverse = self._inverse(2 * c * float(np.mean(problems.weights)))
            for begin in range(0, alike.size, self.width):
                which = alike[begin : begin + self.width]
                done = float((problems.c < c).sum() + begin)

                def tell(part: float, done: float = done, count: int = which.size) -> None:
                    share = (done + part * count) / m
                    self.report(StageAdvanced("svm", int(PERCENT * share)))

                u[which], found, steps[which] = self._solve(
                    problems.some(which), u[which], inverse, gap, tell
                )
                primal[which], dual[which] = found.primal, found.dual
        self.report(StageFinished("svm", PERCENT, time.perf_counter() - began))
        return PrimalSolution(u, Certificate(primal, dual), steps)

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
    ) -> tuple[Array, Certificate, int]:
        m, n = len(problems), self.x.shape[0]
        u = torch.from_numpy(start).to(self.device, self.dtype)
        lines = Lines(*(torch.ones(m, n, dtype=self.dtype, device=self.device) for _ in "ab"))
        if bool(u.any()):
            self._project(problems, u, lines)
            lines.margin = 1 - lines.slope
        step, before, energy = (
            torch.zeros_like(u),
            torch.zeros_like(u),
            torch.ones_like(u[:, 0]),
        )
        target, found = CHECKED * gap, None
        for count in range(MAX_STEPS):
            gradient, primal, share = self._gradient(problems, u, lines)
            z = product(gradient, inverse)
            now = (gradient * z).sum(1)
            # The Hessian with all rows is at most 1 / share of the true one.
            reached = 0.5 * now / (primal * share)
            tell(min(1.0, math.log(max(float(reached.max()), 1e-300)) / math.log(target)))
            if float(reached.max()) <= target:
                weights = u.double().cpu().numpy()
                found = certify(self.x, problems, weights, bias=self.bias, block=self.block)
                if found.gap <= gap or target < 1e-3 * CHECKED * gap:
                    return weights, found, count
                target /= 10
            turn = ((now - (before * z).sum(1)) / energy).clamp_min(0)[:, None]
            step = turn * step - z  # the first is -z
            before, energy = gradient, torch.where(now > 0, now, 1.0)
            self._project(problems, step, lines)
            t = self._search(problems, u, step, lines)
            u = u + t[:, None] * step
            lines.margin.addcmul_(t[:, None], lines.slope, value=-1)
        weights = u.double().cpu().numpy()
        found = certify(self.x, problems, weights, bias=self.bias, block=self.block)
        return weights, found, MAX_STEPS

    def _gradient(
        self, problems: Problems, u: torch.Tensor, lines: Lines
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(m, d + 1) gradients, (m) objectives, (m) shares of rows inside the margin."""
        gradient, primal = u.clone(), 0.5 * (u * u).sum(1)
        active, rows = torch.zeros_like(primal), torch.zeros_like(primal)
        for where, part in self._blocks():
            signs, twice = self._block(problems, where)
            slack = lines.margin[:, where].clamp_min(0)
            pulled = twice * slack
            gradient -= product(pulled * signs, part)
            primal += 0.5 * (pulled * slack).sum(1)
            active += (pulled > 0).sum(1)
            rows += (twice > 0).sum(1)
        return gradient, primal, (active / rows.clamp_min(1)).clamp_min(1e-3)

    def _project(self, problems: Problems, step: torch.Tensor, lines: Lines) -> None:
        """Writes how fast each row's s u·x̃ grows along ``step`` into ``lines.slope``."""
        for where, part in self._blocks():
            signs, _ = self._block(problems, where)
            lines.slope[:, where] = product(step, part.T) * signs

    def _search(
        self, problems: Problems, u: torch.Tensor, step: torch.Tensor, lines: Lines
    ) -> torch.Tensor:
        """(m) how far along ``step``: Newton's method on a piecewise quadratic function."""
        linear, quadratic = (u * step).sum(1), (step * step).sum(1)
        t = torch.zeros_like(linear)
        for _ in range(SEARCHES):
            above, below = -linear, quadratic.clone()
            for where in self._slices():
                _, twice = self._block(problems, where)
                margin, slope = lines.margin[:, where], lines.slope[:, where]
                twice *= torch.addcmul(margin, t[:, None], slope, value=-1) > 0
                weighted = twice.mul_(slope)
                above += (weighted * margin).sum(1)
                below += (weighted * slope).sum(1)
            t = above / torch.where(below > 0, below, 1.0)
        return t

    def _inverse(self, scale: float) -> torch.Tensor:
        matrix = scale * self.moments
        matrix.diagonal().add_(1)
        return inverted(matrix).to(self.dtype)

    def _block(self, problems: Problems, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        signs, costs = problems.block(rows)
        both = (torch.from_numpy(value).to(self.dtype) for value in (signs, 2 * costs))
        first, second = (value.to(self.device) for value in both)
        return first, second

    def _slices(self) -> list[slice]:
        n = self.x.shape[0]
        return [slice(i, min(i + self.block, n)) for i in range(0, n, self.block)]

    def _blocks(self) -> Iterator[tuple[slice, torch.Tensor]]:
        d = self.x.shape[1]
        for rows in self._slices():
            part = torch.empty(rows.stop - rows.start, self.size, dtype=self.dtype)
            part[:, :d] = torch.from_numpy(np.ascontiguousarray(self.x[rows]))
            part[:, d:] = self.bias
            yield rows, part.to(self.device)
