"""Few rows: problems are solved in terms of X̃ X̃ᵀ, which is made once for all of them."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt
import torch
from threadpoolctl import threadpool_limits

from alexkit.events import Reporter, StageAdvanced, StageFinished, StageStarted, silent
from alexkit.probes.descent import (
    STOPPED,
    Leading,
    State,
    along,
    bounds,
    conjugate,
    few,
    newton,
    product,
)
from alexkit.probes.objective import Array, Certificate, Problems, RowBlocks, lifted

BLOCK_BYTES = 64 << 20
"""Of rows that are converted or read at a time."""
GROUP = 1 << 24
"""Entries (problems × rows) worked on at a time on a GPU."""
TOGETHER = 128
"""Problems worked on at a time on one core: enough for products to be fast, and few enough for
their matrices to stay in its cache."""
SPLIT = 16
"""Problems that are worth a second core."""
KEPT = 1 << 25
"""Entries of a solution's decisions that are kept for who begins from it: 256 MB."""
MANY = 16
"""A Gram matrix in float64 is made once problems are more than this part of the rows,"""
FEW = 500
"""and rows more than this; for fewer, certificates from the rows themselves cost nothing."""
PERCENT = 100
ROUNDS = 2
"""Searches in float32, each for a tenth of the gap of the one before, until the certificate
agrees; and twice as many in float64."""


@dataclass(frozen=True)
class GramSolution:
    """m solutions in terms of n rows.

    Attributes:
        beta: (m, n) float64 coefficients of the rows.
        certificate: of these very coefficients.
        steps: (m) int64, products with an (n, n) matrix.
        wide: (m) bool, whether float32 did not reach the gap and float64 was used.
    """

    beta: Array
    certificate: Certificate
    steps: npt.NDArray[np.int64]
    wide: npt.NDArray[np.bool_]


class Gram:
    """The Gram matrix of some rows, and solutions of problems on them.

    Args:
        x: (n, d), finite; read in blocks.
        bias: the constant put beside every row; 0 for no intercept.
        dtype: of the products that search; what is certified is always float64.
        device: where.
        problems: how many will be solved. It decides what is cheaper: the Gram matrix in
            float64, or in float32 and every certificate from the rows themselves.
        report: told what share of the problems of a call are solved, in percent.
    """

    def __init__(
        self,
        x: RowBlocks,
        *,
        bias: float,
        dtype: torch.dtype,
        device: torch.device,
        problems: int,
        report: Reporter = silent,
    ) -> None:
        self.x, self.bias, self.dtype, self.device = x, bias, dtype, device
        self.report = report
        n, d = x.shape
        self.block = max(1, BLOCK_BYTES // (8 * (d + 1)))
        many = problems * MANY > n > FEW
        gram = self._gram(torch.float64 if many else dtype)
        self.exact = gram if many else None
        self.gram = gram.to(dtype)
        # float32 knows a sum of squares to far less than this.
        self.sizes = gram.diagonal().double().sqrt() * (1 + 1e-4)
        self.leading: dict[torch.dtype, Leading] = {}
        self.last: tuple[Array, Array, Array] | None = None
        self.making = Lock()

    def solve(
        self, problems: Problems, *, gap: float, start: Array | None = None
    ) -> GramSolution:
        """Solves until each relative duality gap is at most ``gap``, or rounding forbids more.

        What float32 does not bring there goes on in float64.

        Args:
            start: (m, n) coefficients to begin from, e.g. a solution at a smaller C.
        """
        m, n, began = len(problems), len(self.gram), time.perf_counter()
        beta = np.zeros((m, n)) if start is None else start.copy()
        f, size = self._known(beta)
        primal, dual, steps = np.zeros(m), np.zeros(m), np.zeros(m, np.int64)
        wide = np.zeros(m, bool)

        def work(which: npt.NDArray[np.int64]) -> int:
            found = self._solve(problems.some(which), beta[which], (f[which], size[which]), gap)
            places = (beta, f, size, primal, dual, steps, wide)
            for place, value in zip(places, found, strict=True):
                place[which] = value.cpu().numpy()
            return which.size

        self.report(StageStarted("svm", PERCENT, "percent"))
        groups = self._groups(problems)
        if self.device.type != "cpu" or (len(groups) == 1 and n > FEW):
            self._tell(map(work, groups), m)
        else:
            # Two threads on a small system mostly wait for each other.
            with threadpool_limits(1, "blas"), ThreadPoolExecutor(os.cpu_count()) as pool:
                self._tell(pool.map(work, groups), m)
        self.report(StageFinished("svm", PERCENT, time.perf_counter() - began))
        self.last = (beta, f, size) if beta.size <= KEPT else None
        return GramSolution(beta.copy(), Certificate(primal, dual), steps, wide)

    def _tell(self, sizes: Iterable[int], m: int) -> None:
        """Waits for groups of problems, m in all."""
        for solved in itertools.accumulate(sizes):
            self.report(StageAdvanced("svm", PERCENT * solved // m))

    def _groups(self, problems: Problems) -> list[npt.NDArray[np.int64]]:
        """Problems at one C that are worked on together; whatever the number of cores."""
        groups: list[npt.NDArray[np.int64]] = []
        for c in np.unique(problems.c):
            alike = np.flatnonzero(problems.c == c)
            if self.device.type != "cpu" or self.exact is None:
                # All read the rows together.
                count = -(-alike.size * len(self.gram) // GROUP)
            else:
                count = 1 if alike.size < SPLIT else 2 * -(-alike.size // (2 * TOGETHER))
            groups += [part for part in np.array_split(alike, count) if part.size]
        return groups

    def weights(self, beta: Array) -> Array:
        """(m, d + 1) float64: the sums of rows that (m, n) coefficients stand for."""
        d = self.x.shape[1] + (self.bias != 0)
        total = torch.zeros(len(beta), d, dtype=torch.float64, device=self.device)
        for rows in self._blocks():
            total += product(self._here(np.ascontiguousarray(beta[:, rows])), self._rows(rows))
        return np.asarray(total.cpu().numpy())

    def decisions(self, beta: Array, rows: npt.NDArray[np.int64]) -> Array:
        """(m, rows) float64 decision values of some rows."""
        if self.exact is not None:
            return np.asarray(product(self._here(beta), self.exact[:, rows]).cpu().numpy())
        return np.asarray(self._decisions(self._here(beta))[0].cpu().numpy()[:, rows])

    def _solve(
        self, problems: Problems, start: Array, known: tuple[Array, Array], gap: float
    ) -> tuple[torch.Tensor, ...]:
        signs, costs = (self._here(value) for value in problems.block())
        beta, f, size = (self._here(value) for value in (start, *known))
        primal, dual = bounds(
            signs, costs, beta, (f, size), gap=1.0, sizes=self.sizes, length=self._length
        )
        steps = torch.zeros(len(beta), dtype=torch.int64, device=self.device)
        wide = torch.zeros(len(beta), dtype=torch.bool, device=self.device)
        scale = 2 * problems.c[0] * float(np.mean(problems.weights))
        plan = [(self.dtype, STOPPED * gap / 10**turn) for turn in range(ROUNDS)]
        plan += [(torch.float64, STOPPED * gap / 10**turn) for turn in range(2 * ROUNDS)]
        for turn, (dtype, target) in enumerate(plan):
            left = (primal - dual > gap * primal).nonzero()[:, 0]
            if not left.numel():
                break
            wide[left] |= dtype != self.dtype
            state = State(
                signs[left].to(dtype),
                (2 * costs[left]).to(dtype),
                beta[left].to(dtype),
                f[left].to(dtype),
                steps[left],
            )
            self._descend(state, scale, target, last=turn % ROUNDS > 0)
            found = state.beta.double()
            values, sizes = self._decisions(found)
            p, d = bounds(
                signs[left],
                costs[left],
                found,
                (values, sizes),
                gap=gap,
                sizes=self.sizes,
                length=self._length,
            )
            steps[left] = state.steps
            dual[left] = torch.maximum(dual[left], d)
            better = p <= primal[left]
            at = left[better]
            beta[at], f[at], primal[at] = found[better], values[better], p[better]
            size[at] = sizes[better]
        return beta, f, size, primal, dual, steps, wide

    def _descend(self, state: State, scale: float, gap: float, *, last: bool) -> None:
        gram = self._gram_in(state.beta.dtype)
        many = ~few(state)
        if bool(many.any()):
            part = state.some(many)
            part.move(along(part, part.beta, part.f), part.beta, part.f)
            leading = self._lead(state.beta.dtype)
            state.put(many, conjugate(part, gram, leading, scale, gap))
            many = ~few(state) if not last else torch.zeros_like(many)
        if not bool(many.all()):
            state.put(~many, newton(state.some(~many), gram, gap))

    def _gram_in(self, dtype: torch.dtype) -> torch.Tensor:
        if dtype == self.dtype:
            return self.gram
        with self.making:
            if self.exact is None:
                self.exact = self._gram(dtype)
        return self.exact

    def _lead(self, dtype: torch.dtype) -> Leading:
        gram = self._gram_in(dtype)
        with self.making:
            if dtype not in self.leading:
                self.leading[dtype] = Leading.of(gram)
        return self.leading[dtype]

    def _known(self, beta: Array) -> tuple[Array, Array]:
        """(m, n) decisions and (m) ‖u‖²; those of the last solution are known."""
        if self.last is not None and np.array_equal(self.last[0], beta):
            return self.last[1].copy(), self.last[2].copy()
        f, size = self._decisions(self._here(beta))
        return np.asarray(f.cpu().numpy()), np.asarray(size.cpu().numpy())

    def _decisions(self, beta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, n) decisions and (m) ‖u‖², in float64 from the rows to here."""
        if not bool(beta.any()):
            return torch.zeros_like(beta), torch.zeros_like(beta[:, 0])
        if self.exact is not None:
            f = product(beta, self.exact)
            return f, (beta * f).sum(1)
        u = self._here(self.weights(beta.cpu().numpy()))
        f = torch.cat([product(u, self._rows(rows).T) for rows in self._blocks()], dim=1)
        return f, (u**2).sum(1)

    def _length(self, beta: torch.Tensor) -> torch.Tensor:
        """(m) ‖u‖², in float64 from the rows to here."""
        if self.exact is not None:
            return (product(beta, self.exact) * beta).sum(1)
        return self._here((self.weights(beta.cpu().numpy()) ** 2).sum(axis=1))

    def _gram(self, dtype: torch.dtype) -> torch.Tensor:
        """(n, n), symmetric to the last bit."""
        n = self.x.shape[0]
        if self.device.type == "cpu":
            rows = np.empty((n, self.x.shape[1] + (self.bias != 0)), str(dtype)[6:])
            for part in self._blocks():
                rows[part] = lifted(self.x[part], self.bias)
            return torch.from_numpy(rows @ rows.T)  # numpy sees the symmetry: half the work
        whole = torch.cat([self._rows(part).to(dtype) for part in self._blocks()])
        gram = whole @ whole.T
        return (gram + gram.T) / 2

    def _blocks(self) -> list[slice]:
        n = self.x.shape[0]
        return [slice(i, min(i + self.block, n)) for i in range(0, n, self.block)]

    def _rows(self, rows: slice) -> torch.Tensor:
        return self._here(lifted(self.x[rows], self.bias))

    def _here(self, value: Array) -> torch.Tensor:
        return torch.from_numpy(value).to(self.device)
