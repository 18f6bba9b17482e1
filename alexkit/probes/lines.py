"""What a descent keeps of every row: its margin, and what a step takes from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from alexkit.probes.objective import Problems


@dataclass
class Lines:
    """What is kept of every row, for the m problems of one group.

    Attributes:
        margin: (m, n) of the working type, 1 - s u·x̃; minus infinity for a row that is left
            out, which so is never inside.
        slope: (m, n) what a step takes from each margin.
        signs: (m, n) int8.
        price: (m) 2 C.
        factors: (m, 2) what it is multiplied by for rows of sign -1 and +1; None where by 1.
        weights: (n) what it is multiplied by for each row; None where by 1.
    """

    margin: torch.Tensor
    slope: torch.Tensor
    signs: torch.Tensor
    price: torch.Tensor
    factors: torch.Tensor | None
    weights: torch.Tensor | None

    @classmethod
    def of(cls, problems: Problems, dtype: torch.dtype, device: torch.device) -> Lines:
        """Of weights of 0."""
        coded = np.ascontiguousarray(problems.signs.T)[problems.target]
        margin = torch.ones(coded.shape, dtype=dtype)
        margin[torch.from_numpy(coded == 0)] = -math.inf
        for fold in np.unique(problems.held_out):
            outside = np.flatnonzero(problems.folds == fold)
            if outside.size:
                of_fold = np.flatnonzero(problems.held_out == fold)
                margin[
                    torch.from_numpy(of_fold)[:, None], torch.from_numpy(outside)
                ] = -math.inf
        alike = bool((problems.factors == 1).all())
        plain = bool((problems.weights == 1).all())
        return cls(
            margin.to(device),
            torch.empty(coded.shape, dtype=dtype, device=device),
            torch.from_numpy(coded).to(device),
            torch.from_numpy(2 * problems.c).to(device, dtype),
            None if alike else torch.from_numpy(problems.factors).to(device, dtype),
            None if plain else torch.from_numpy(problems.weights).to(device, dtype),
        )

    def weigh(self, values: torch.Tensor, some: slice, rows: slice) -> torch.Tensor:
        """``values`` of some problems and rows, times what their cost is in ``price``s."""
        if self.weights is not None:
            values = values * self.weights[rows]
        if self.factors is not None:
            others, own = self.factors[some].T[:, :, None]
            values = values * torch.where(self.signs[some, rows] > 0, own, others)
        return values

    def keep(self, which: torch.Tensor) -> None:
        """Only those problems; in place, as all of it twice may not fit the memory."""
        for new, old in enumerate(which.nonzero()[:, 0].tolist()):
            for table in (self.margin, self.slope, self.signs):
                table[new] = table[old]
        left = int(which.sum())
        self.margin, self.slope = self.margin[:left], self.slope[:left]
        self.signs, self.price = self.signs[:left], self.price[which]
        self.factors = None if self.factors is None else self.factors[which]
