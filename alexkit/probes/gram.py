"""Few rows: problems are solved in terms of X̃ X̃ᵀ, which is made once for all of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alexkit.probes.descent import (
    CHECKED,
    State,
    bounds,
    conjugate,
    few,
    inverted,
    newton,
    product,
)
from alexkit.probes.objective import Array, Certificate, Problems, RowBlocks, lifted

BLOCK_BYTES = 64 << 20
"""Of rows that are converted or read at a time."""
GROUP = 1 << 24
"""Entries (problems × rows) worked on at a time: 64 MB a matrix in float32."""
ROUNDS = 8
"""Searches, each for a tenth of the gap of the one before, until the certificate agrees."""
MANY = 8
"""Problems from which on an inverse that they share is worth its n³ operations."""


@dataclass(frozen=True)
class GramSolution:
    """m solutions in terms of n rows.

    Attributes:
        beta: (m, n) float64 coefficients of the rows.
        certificate: of these very coefficients.
        steps: (m) int64, products with an (n, n) matrix.
    """

    beta: Array
    certificate: Certificate
    steps: npt.NDArray[np.int64]


class Gram:
    """The Gram matrix of some rows, and solutions of problems on them.

    Args:
        x: (n, d), finite; read in blocks.
        bias: the constant put beside every row; 0 for no intercept.
        dtype: of the products that search; what is certified is always float64.
        device: where.
        problems: how many will be solved. It decides what is cheaper: the Gram matrix in
            float64, or in float32 and every certificate from the rows themselves.
    """

    def __init__(
        self,
        x: RowBlocks,
        *,
        bias: float,
        dtype: torch.dtype,
        device: torch.device,
        problems: int,
    ) -> None:
        self.x, self.bias, self.dtype, self.device = x, bias, dtype, device
        n, d = x.shape
        self.block = max(1, BLOCK_BYTES // (8 * (d + 1)))
        many = 4 * d * problems > n * (d + 2 * problems)
        gram = self._gram(torch.float64 if many else dtype)
        self.exact = gram if many else None
        self.gram = gram.to(dtype)
        self.inverses: dict[float, torch.Tensor] = {}

    def solve(
        self, problems: Problems, *, gap: float, start: Array | None = None
    ) -> GramSolution:
        """Solves until each relative duality gap is at most ``gap``, or rounding forbids more.

        Args:
            start: (m, n) coefficients to begin from, e.g. a solution at a smaller C.
        """
        m, n = len(problems), len(self.gram)
        beta = np.zeros((m, n)) if start is None else start.copy()
        primal, dual, steps = np.zeros(m), np.zeros(m), np.zeros(m, np.int64)
        width = max(1, GROUP // n)
        for c in np.unique(problems.c):
            alike = np.flatnonzero(problems.c == c)
            for begin in range(0, alike.size, width):
                which = alike[begin : begin + width]
                found = self._solve(problems.some(which), beta[which], gap)
                for place, value in zip((beta, primal, dual, steps), found, strict=True):
                    place[which] = value.cpu().numpy()
        self.inverses.clear()
        return GramSolution(beta, Certificate(primal, dual), steps)

    def weights(self, beta: Array) -> Array:
        """(m, d + 1) float64: the sums of rows that (m, n) coefficients stand for."""
        d = self.x.shape[1] + (self.bias != 0)
        total = torch.zeros(len(beta), d, dtype=torch.float64, device=self.device)
        for rows in self._blocks():
            total += product(self._here(np.ascontiguousarray(beta[:, rows])), self._rows(rows))
        return np.asarray(total.cpu().numpy())

    def decisions(self, beta: Array) -> Array:
        """(m, n) float64 decision values of every row."""
        return np.asarray(self._decisions(self._here(beta))[0].cpu().numpy())

    def _solve(self, problems: Problems, start: Array, gap: float) -> tuple[torch.Tensor, ...]:
        signs, costs = (self._here(value) for value in problems.block())
        beta = self._here(start)
        f, size = self._decisions(beta)
        primal, dual = costs.sum(1), torch.zeros_like(size)
        if bool(beta.any()):
            primal, dual = bounds(signs, costs, beta, (f, size), self._length)
        steps = torch.zeros(len(beta), dtype=torch.int64, device=self.device)
        scale = 2 * problems.c[0] * float(np.mean(problems.weights))
        target = CHECKED * gap
        for turn in range(ROUNDS):
            left = (primal - dual > gap * primal).nonzero()[:, 0]
            if not left.numel():
                break
            state = State(
                signs[left].to(self.dtype),
                (2 * costs[left]).to(self.dtype),
                beta[left].to(self.dtype),
                f[left].to(self.dtype),
                steps[left],
            )
            self._descend(state, scale, target, last=turn >= ROUNDS // 2)
            found = state.beta.double()
            values, size = self._decisions(found)
            p, d = bounds(signs[left], costs[left], found, (values, size), self._length)
            steps[left] = state.steps
            dual[left] = torch.maximum(dual[left], d)
            better = p <= primal[left]
            at = left[better]
            beta[at], f[at], primal[at] = found[better], values[better], p[better]
            target /= 10
        return beta, primal, dual, steps

    def _descend(self, state: State, scale: float, gap: float, *, last: bool) -> None:
        many = ~few(state)
        if int(many.sum()) >= MANY:
            part = state.some(many)
            state.put(many, conjugate(part, self._inverse(scale), scale, gap))
            many = ~few(state) if not last else torch.zeros_like(many)
        else:
            many = torch.zeros_like(many)
        if not bool(many.all()):
            state.put(~many, newton(state.some(~many), self.gram, gap))

    def _inverse(self, scale: float) -> torch.Tensor:
        """(I + scale·K)⁻¹, by a factor in float64: in float32 its error would be taken for
        a change of decisions."""
        if scale not in self.inverses:
            matrix = scale * (self.gram if self.exact is None else self.exact).double()
            matrix.diagonal().add_(1)
            self.inverses[scale] = inverted(matrix).to(self.dtype)
        return self.inverses[scale]

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
            return self._decisions(beta)[1]
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
