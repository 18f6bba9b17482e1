"""Few rows: problems are solved in terms of X̃ X̃ᵀ, which is made once for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from alexkit.events import Reporter, silent
from alexkit.probes.cores import blocks_of, one_thread_a_product, spread
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
from alexkit.probes.objective import Array, Certificate, Problems, RowBlocks, Solution
from alexkit.probes.progress import PERCENT, solving

BLOCK_BYTES = 32 << 20
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
ROUNDS = 2
"""Searches in float32, each for a tenth of the gap of the one before, until the certificate
agrees; and twice as many in float64."""


T = TypeVar("T", npt.NDArray[Any], torch.Tensor)


@dataclass
class Known(Generic[T]):
    """What is known of m solutions, in float64.

    Attributes:
        beta: (m, n) coefficients of the rows.
        f: (m, n) decisions.
        size: (m) ‖u‖².
        u: (m, d + 1) the sums of rows that ``beta`` stands for, where they had to be made, or
            NaN; (m, 0) where the Gram matrix in float64 tells all.
    """

    beta: T
    f: T
    size: T
    u: T

    def some(self, which: T) -> Known[T]:
        return Known(self.beta[which], self.f[which], self.size[which], self.u[which])

    def put(self, which: T, other: Known[T]) -> None:
        for field in fields(self):
            getattr(self, field.name)[which] = getattr(other, field.name)


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
        self.width = 0 if many else d + (bias != 0)
        gram = self._gram(torch.float64 if many else dtype)
        self.exact = gram if many else None
        self.gram = gram.to(dtype)
        # A sum of k products is known to k + 1 roundings of their absolute values, in whatever
        # order it is taken (Higham, Accuracy and Stability of Numerical Algorithms, 3.1).
        self.rounding = 1.1 * torch.finfo(dtype).eps / 2 * (n + d + 4)
        self.sizes = gram.diagonal().double().sqrt() * (1 + self.rounding)
        self.leading: dict[torch.dtype, Leading] = {}
        self.last: Known[npt.NDArray[Any]] | None = None
        self.making = Lock()

    def solve(self, problems: Problems, *, gap: float, start: Array | None = None) -> Solution:
        """Solves until each relative duality gap is at most ``gap``, or rounding forbids more.

        What float32 does not bring there goes on in float64. The terms are coefficients of the
        rows, a step is a product with an (n, n) matrix.

        Args:
            start: (m, n) coefficients to begin from, e.g. a solution at a smaller C.
        """
        m, n = len(problems), len(self.gram)
        beta = np.zeros((m, n)) if start is None else start
        nothing = (np.zeros((m, n)), np.zeros((m, n)), np.zeros(m), np.zeros((m, self.width)))
        known: Known[npt.NDArray[Any]] = Known(*nothing)
        primal, dual, steps = np.zeros(m), np.zeros(m), np.zeros(m, np.int64)
        wide = np.zeros(m, bool)

        def work(which: npt.NDArray[np.int64]) -> int:
            found, rest = self._solve(problems.some(which), beta[which], gap)
            known.put(which, found)
            for place, value in zip((primal, dual, steps, wide), rest, strict=True):
                place[which] = value.cpu().numpy()
            return which.size

        groups = self._groups(problems)
        alone = one_thread_a_product() if n <= FEW else nullcontext()
        with (
            solving(self.report) as stage,
            alone,
            self._map(1 if self.width else len(groups)) as mapped,
        ):
            for solved in itertools.accumulate(mapped(work, groups)):
                stage.reach(PERCENT * solved // m)
        self.last = known if known.beta.size <= KEPT else None
        return Solution(known.beta.copy(), Certificate(primal, dual), steps, wide)

    def _groups(self, problems: Problems) -> list[npt.NDArray[np.int64]]:
        """Problems at one C that are worked on together; whatever the number of cores."""
        groups: list[npt.NDArray[np.int64]] = []
        for c in np.unique(problems.c):
            alike = np.flatnonzero(problems.c == c)
            if self.device.type != "cpu" or self.width:
                # All read the rows together.
                count = -(-alike.size * len(self.gram) // GROUP)
                groups += [part for part in np.array_split(alike, count) if part.size]
            else:
                groups += _shares(alike)
        return groups

    def weights(self, beta: Array) -> Array:
        """(m, d + 1) float64: the sums of rows that (m, n) coefficients stand for."""
        last = self.last
        if self.width and last is not None and np.array_equal(last.beta, beta):
            u = np.array(last.u)
            if bool(np.isfinite(u).all()):
                return u
        return np.asarray(self._sums(self._here(beta)).cpu().numpy())

    def decisions(self, beta: Array, rows: npt.NDArray[np.int64]) -> Array:
        """(m, rows) float64 decision values of some rows."""
        if self.exact is not None:
            return np.asarray(product(self._here(beta), self.exact[:, rows]).cpu().numpy())
        return np.asarray(self._look(self._here(beta)).f.cpu().numpy()[:, rows])

    def _solve(
        self, problems: Problems, start: Array, gap: float
    ) -> tuple[Known[npt.NDArray[Any]], tuple[torch.Tensor, ...]]:
        """What is known of the solutions; primal and dual values, steps and ``wide``."""
        signs, costs = (self._here(value) for value in problems.block())
        best = self._look(self._here(start))
        primal, dual = self._bounds(signs, costs, best, 1.0)
        steps = torch.zeros(len(signs), dtype=torch.int64, device=self.device)
        wide = torch.zeros(len(signs), dtype=torch.bool, device=self.device)
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
                best.beta[left].to(dtype),
                best.f[left].to(dtype),
                steps[left],
            )
            self._descend_in_shares(state, scale, target, last=turn % ROUNDS > 0)
            found = self._look(state.beta.double())
            p, d = self._bounds(signs[left], costs[left], found, gap)
            steps[left] = state.steps
            dual[left] = torch.maximum(dual[left], d)
            better = p <= primal[left]
            primal[left[better]] = p[better]
            best.put(left[better], found.some(better))
        kept = Known(*(getattr(best, field.name).cpu().numpy() for field in fields(best)))
        return kept, (primal, dual, steps, wide)

    def _bounds(
        self, signs: torch.Tensor, costs: torch.Tensor, found: Known[torch.Tensor], gap: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        lengths = (self._length,) if self.exact is not None else (self._at_most, self._length)
        known = (found.f, found.size)
        return bounds(
            signs, costs, found.beta, known, gap=gap, sizes=self.sizes, lengths=lengths
        )

    def _descend_in_shares(self, state: State, scale: float, gap: float, *, last: bool) -> None:
        """A share of the problems on each core, where they are not on cores already."""
        if self.device.type != "cpu" or not self.width:
            self._descend(state, scale, gap, last=last)
            return
        shares = [torch.from_numpy(part) for part in _shares(np.arange(len(state.beta)))]
        parts = [state.some(share) for share in shares]
        with self._map(len(parts)) as mapped:
            list(mapped(lambda part: self._descend(part, scale, gap, last=last), parts))
        for share, part in zip(shares, parts, strict=True):
            state.put(share, part)

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

    def _look(self, beta: torch.Tensor) -> Known[torch.Tensor]:
        """Decisions, ‖u‖² and u of coefficients, in float64 from the rows to here."""
        if not bool(beta.any()):
            u = self._sums(beta)[:, : self.width]
            return Known(beta, torch.zeros_like(beta), torch.zeros_like(beta[:, 0]), u)
        if self.exact is not None:
            f = product(beta, self.exact)
            unknown = beta.new_full((len(beta), self.width), torch.nan)
            return Known(beta, f, (beta * f).sum(1), unknown)
        u = self._sums(beta)
        blocks = self._blocks()

        def decide(rows: slice) -> torch.Tensor:
            d = self.x.shape[1]
            found = product(u[:, :d], self._rows(rows).T)
            return found.add_(u[:, d:] * self.bias) if self.bias else found

        with self._map(len(blocks)) as mapped:
            return Known(beta, torch.cat(list(mapped(decide, blocks)), dim=1), (u**2).sum(1), u)

    def _sums(self, beta: torch.Tensor) -> torch.Tensor:
        """(m, d + 1) float64 sums of rows."""
        d = self.x.shape[1]
        u = beta.new_zeros(len(beta), d + (self.bias != 0))
        if not bool(beta.any()):
            return u
        blocks = self._blocks()

        def add(rows: slice) -> torch.Tensor:
            return product(beta[:, rows].contiguous(), self._rows(rows))

        with self._map(len(blocks)) as mapped:
            for part in mapped(add, blocks):
                u[:, :d] += part
        if self.bias:
            u[:, d] = beta.sum(1) * self.bias
        return u

    def _length(self, beta: torch.Tensor) -> torch.Tensor:
        """(m) ‖u‖², in float64 from the rows to here."""
        if self.exact is not None:
            return (product(beta, self.exact) * beta).sum(1)
        return (self._sums(beta) ** 2).sum(1)

    def _at_most(self, beta: torch.Tensor) -> torch.Tensor:
        """(m) no less than ‖u‖², from the Gram matrix that searches and what rounding did."""
        near = beta.to(self.dtype)
        absolute = beta.abs() @ self.sizes
        about = (product(near, self.gram).double() * near.double()).sum(1)
        length = (about.clamp_min(0) + self.rounding * absolute**2).sqrt()
        return (length + self.rounding * absolute) ** 2

    def _map(self, items: int) -> AbstractContextManager[Callable[..., Iterable[Any]]]:
        return spread(items) if self.device.type == "cpu" else nullcontext(map)

    def _gram(self, dtype: torch.dtype) -> torch.Tensor:
        """(n, n), symmetric to the last bit."""
        if self.device.type == "cpu":
            x: Any = self.x
            name = str(dtype)[6:]
            if not (isinstance(x, np.ndarray) and x.dtype == name and x.flags.c_contiguous):
                x = np.empty(self.x.shape, name)
                for part in self._blocks():
                    x[part] = self.x[part]
            gram = torch.from_numpy(x @ x.T)  # numpy sees the symmetry: half the work
        else:
            whole = torch.cat([self._rows(part).to(dtype) for part in self._blocks()])
            gram = whole @ whole.T
            gram = (gram + gram.T) / 2
        return gram.add_(self.bias**2)

    def _blocks(self) -> list[slice]:
        return blocks_of(self.x.shape[0], self.block)

    def _rows(self, rows: slice) -> torch.Tensor:
        """(rows, d) in float64, without the constant beside them."""
        part = np.asarray(self.x[rows], np.float64)
        return self._here(part if part.flags.writeable else part.copy())

    def _here(self, value: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(value).to(self.device)


def _shares(which: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Problems that are worked on together; whatever the number of cores."""
    count = 1 if which.size < SPLIT else 2 * -(-which.size // (2 * TOGETHER))
    return [part for part in np.array_split(which, count) if part.size]
