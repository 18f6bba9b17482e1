"""Many rows: problems are solved in terms of their weights, with rows read in blocks.

Nonlinear conjugate gradients (Polak–Ribière) with an exact line search. The preconditioner is
the Hessian in which a share ρ of all rows, whichever, is inside the margin, I + 2Cρ X̃ᵀX̃: X̃ᵀX̃
(d, d) is made in one pass over the rows and shared by every problem, ρ is what the problems
have on average. A step reads the rows twice.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.linalg import get_lapack_funcs

from alexkit.events import Reporter, Stage, silent
from alexkit.probes.cores import LANES, blocks_of, lanes
from alexkit.probes.descent import product
from alexkit.probes.lines import Lines
from alexkit.probes.objective import (
    Array,
    Certificate,
    Problems,
    RowBlocks,
    Solution,
    certify,
    lifted,
)
from alexkit.probes.progress import PERCENT, solving

BLOCK_BYTES = 32 << 20
"""Of rows that are read at a time."""
MEMORY = 1 << 30
"""Bytes for what is kept of every row: problems are solved in groups that fit."""
SEARCHES = 3
"""Newton steps of a line search."""
MAX_STEPS = 1000
STOPPED = 0.8
"""Share of the asked gap at which the search stops; the rest is for its rounding."""
STALLED = 20
"""Steps in which no problem came nearer: rounding allows no more."""
TOGETHER = 64
"""Problems of a block of rows that a line search looks at together: they fit a core's cache."""
LEAST_SHARE = 1e-3
"""Of rows inside the margin, that the preconditioner takes for granted."""
LONG = 10**11
"""Products of a pass that is worth a line of progress."""
KEPT = 0.8
"""Problems that are done are left out once fewer than this share go on."""


class Streamed:
    """Rows that are read in blocks, and solutions of problems on them.

    Args:
        x: (n, d), finite; read in order, in blocks, some ten to sixty times.
        bias: the constant put beside every row; 0 for no intercept.
        dtype: of the products that search; what is certified is always float64.
        device: where.
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
        report: Reporter = silent,
    ) -> None:
        self.x, self.bias, self.dtype, self.device = x, bias, dtype, device
        self.report = report
        n, d = x.shape
        self.size = d + (bias != 0)
        self.block = max(1, min(BLOCK_BYTES // (4 * self.size), -(-n // LANES)))
        self.width = max(1, MEMORY // ((2 * dtype.itemsize + 1) * n))
        self.made = (0.0, torch.empty(0))
        self.moments = self._moments()

    def solve(self, problems: Problems, *, gap: float, start: Array | None = None) -> Solution:
        """Solves until each relative duality gap is at most ``gap``, or rounding forbids more.

        What float32 does not bring there goes on in float64. The terms are weights, a step is
        two products with all rows.

        Args:
            start: (m, d + 1) weights to begin from, e.g. a solution at a smaller C.
        """
        m = len(problems)
        u = np.zeros((m, self.size)) if start is None else start.copy()
        primal, dual, steps = np.zeros(m), np.zeros(m), np.zeros(m, np.int64)
        wide = np.zeros(m, bool)
        with solving(self.report) as stage:
            for c in np.unique(problems.c):
                alike = np.flatnonzero(problems.c == c)
                scale = 2 * c * float(np.mean(problems.weights))
                done = int((problems.c < c).sum())
                for which in np.array_split(alike, -(-alike.size // self.width)):

                    def tell(part: float, done: int = done, count: int = which.size) -> None:
                        stage.reach(int(PERCENT * (done + part * count) / m))

                    found = self._solve(problems.some(which), u[which], scale, gap, tell)
                    for place, value in zip((u, primal, dual, steps, wide), found, strict=True):
                        place[which] = value
                    done += which.size
            stage.reach(PERCENT)
        return Solution(u, Certificate(primal, dual), steps, wide)

    def weights(self, u: Array) -> Array:
        """(m, d + 1) float64, (m, d) without an intercept: the terms themselves."""
        return u

    def decisions(self, u: Array, rows: npt.NDArray[np.int64]) -> Array:
        """(m, rows) float64 decision values of some rows, ascending; reads all of them."""
        found = np.empty((len(u), len(rows)))
        for where in blocks_of(self.x.shape[0], self.block):
            at = slice(*np.searchsorted(rows, (where.start, where.stop)))
            part = lifted(self.x[where], self.bias)
            found[:, at] = u @ part[rows[at] - where.start].T
        return found

    def _solve(
        self,
        problems: Problems,
        start: Array,
        scale: float,
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
                ended, count = self._descend(part, begun, scale, gap, tell)
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
        scale: float,
        gap: float,
        tell: Callable[[float], None],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Nearer weights (m, d + 1), and steps (m).

        With a = 2 c ξ of some weights, P - D(a) is half the squared length of the gradient.
        """
        m = len(problems)
        result, steps = u.clone(), torch.zeros(m, dtype=torch.int64, device=self.device)
        at = torch.arange(m, device=self.device)
        lines = Lines.of(problems, u.dtype, self.device)
        if bool(u.any()):
            self._project(u, lines)
            self._move(torch.ones_like(u[:, 0]), lines)
        step, before, energy = (
            torch.zeros_like(u),
            torch.zeros_like(u),
            torch.ones_like(u[:, 0]),
        )
        least, stalled, share = torch.full_like(energy, math.inf), 0, 1.0
        for _ in range(MAX_STEPS):
            gradient, primal, inside = self._gradient(u, lines)
            reached = 0.5 * (gradient * gradient).sum(1) / torch.where(primal > 0, primal, 1.0)
            better = reached < least[at]
            result[at[better]], least[at] = u[better], torch.minimum(reached, least[at])
            stalled = 0 if bool(better.any()) else stalled + 1
            todo = least[at] > STOPPED * gap
            worst = float(least.max())
            tell(min(1.0, max(0.0, math.log(max(worst, 1e-300)) / math.log(STOPPED * gap))))
            if not bool(todo.any()) or stalled == STALLED:
                break
            if not 0.5 * share < inside < 2 * share:
                share = max(inside, LEAST_SHARE)
                step.zero_()  # what was learnt of curvature was of another preconditioner
            z = product(gradient, self._inverse(scale * share).to(u.dtype))
            now = (gradient * z).sum(1)
            turn = ((now - (before * z).sum(1)) / energy).clamp_min(0)[:, None]
            step = turn * step - z  # the first is -z
            before, energy = gradient, torch.where(now > 0, now, 1.0)
            if int(todo.sum()) < KEPT * len(todo):
                at, u = at[todo], u[todo]
                step, before, energy = step[todo], before[todo], energy[todo]
                lines.keep(todo)
            self._project(step, lines)
            t = self._search(u, step, lines)
            u = u + t[:, None] * step
            self._move(t, lines)
            steps[at] += 1
        return result, steps

    def _gradient(
        self, u: torch.Tensor, lines: Lines
    ) -> tuple[torch.Tensor, torch.Tensor, float]:
        """(m, d + 1) gradients, (m) objectives, and the mean share of rows inside."""

        def look(blocks: list[slice]) -> tuple[torch.Tensor, torch.Tensor, int]:
            pull, loss, count = torch.zeros_like(u), torch.zeros_like(u[:, 0]).double(), 0
            for rows in blocks:
                slack = lines.margin[:, rows].clamp_min(0)
                count += int(slack.count_nonzero())
                pulled = lines.weigh(slack, slice(None), rows)
                loss += torch.linalg.vecdot(pulled, slack)
                pull += product(pulled.mul_(lines.signs[:, rows]), self._rows(rows, u.dtype))
            return pull, loss, count

        found = list(zip(*self._lanes(look), strict=True))
        pull, loss, count = (functools.reduce(operator.add, part) for part in found)
        gradient = u - lines.price[:, None] * pull
        primal = 0.5 * ((u * u).sum(1) + (lines.price * loss).to(u.dtype))
        return gradient, primal, count / lines.margin.numel()

    def _project(self, step: torch.Tensor, lines: Lines) -> None:
        """Writes how fast each row's s u·x̃ grows along ``step`` into ``lines.slope``."""

        def look(blocks: list[slice]) -> None:
            for rows in blocks:
                along = product(step, self._rows(rows, step.dtype).T)
                torch.mul(along, lines.signs[:, rows], out=lines.slope[:, rows])

        self._lanes(look)

    def _move(self, t: torch.Tensor, lines: Lines) -> None:
        def look(blocks: list[slice]) -> None:
            for rows in blocks:
                lines.margin[:, rows].addcmul_(t[:, None], lines.slope[:, rows], value=-1)

        self._lanes(look)

    def _search(self, u: torch.Tensor, step: torch.Tensor, lines: Lines) -> torch.Tensor:
        """(m) how far along ``step``: Newton's method on a piecewise quadratic function."""
        linear, quadratic = (u * step).sum(1).double(), (step * step).sum(1).double()
        t = torch.zeros_like(u[:, 0])
        groups = blocks_of(len(u), TOGETHER)

        def look(blocks: list[slice]) -> tuple[torch.Tensor, torch.Tensor]:
            above, below = torch.zeros_like(linear), torch.zeros_like(linear)
            for rows, some in itertools.product(blocks, groups):
                slope = lines.slope[some, rows]
                slack = torch.addcmul(lines.margin[some, rows], t[some, None], slope, value=-1)
                inside = lines.weigh(slope * (slack.clamp_min_(0) > 0), some, rows)
                above[some] += torch.linalg.vecdot(inside, slack)
                below[some] += torch.linalg.vecdot(inside, slope)
            return above, below

        for _ in range(SEARCHES):
            found = zip(*self._lanes(look), strict=True)
            pulled, bent = (functools.reduce(operator.add, part) for part in found)
            fall = lines.price * pulled - linear - t * quadratic
            curved = lines.price * bent + quadratic
            t = t + (fall / torch.where(curved > 0, curved, 1.0)).to(t.dtype)
        return t

    def _moments(self) -> torch.Tensor:
        """(d + 1, d + 1) X̃ᵀX̃, in float64 from products of blocks to here."""
        n = self.x.shape[0]
        told = self.report if n * self.size**2 > LONG else silent
        total = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.device)
        with Stage(told, "moments", n, "rows") as stage:
            for rows in blocks_of(n, self.block):
                part = self._rows(rows, self.dtype)
                total += product(part.T, part)  # numpy sees the symmetry: half the work
                stage.reach(rows.stop)
        return total

    def _inverse(self, scale: float) -> torch.Tensor:
        """(I + ``scale`` X̃ᵀX̃)⁻¹; the last one is kept."""
        if self.made[0] != scale:
            matrix = scale * self.moments
            matrix.diagonal().add_(1)
            self.made = (scale, inverted(matrix).to(self.dtype))
        return self.made[1]

    def _lanes(self, work: Callable[[list[slice]], Any]) -> list[Any]:
        blocks = blocks_of(self.x.shape[0], self.block)
        return lanes(work, blocks) if self.device.type == "cpu" else [work(blocks)]

    def _rows(self, rows: slice, dtype: torch.dtype) -> torch.Tensor:
        """(rows, d + 1) with the constant beside them."""
        part = np.empty((rows.stop - rows.start, self.size), str(dtype)[6:])
        d = self.x.shape[1]
        part[:, :d] = self.x[rows]
        part[:, d:] = self.bias
        return torch.from_numpy(part).to(self.device)


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
