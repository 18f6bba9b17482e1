"""Steps of many SVM problems at once, in terms of the Gram matrix of their rows.

The weights of a solution are a sum of rows, u = Σ β_i x̃_i, so decisions are f = β K with the
Gram matrix K = X̃ X̃ᵀ (n, n), and the objective is piecewise quadratic in β (Chapelle,
Training a support vector machine in the primal, Neural Computation 19, 2007). With
ξ = max(0, 1 - s f) its gradient is X̃ᵀ r, r = β - 2 c ξ s. Problems are rows of (m, n)
matrices, and a step of all of them is one product with an (n, n) matrix.

Two kinds of step, by how many rows are inside the margin ("active"). Many: conjugate gradients
preconditioned in the leading directions of the rows, which all classes, folds and C share. Few:
Newton's method, the active rows' system solved exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import get_lapack_funcs

DIRECT = 0.12
"""Share of active rows up to which their system is solved exactly."""
DIRECT_ROWS = 500
"""As many active rows are always solved exactly."""
LEADING = 256
"""Directions of the rows that are preconditioned; 64 to 512 take 14 to 12 steps at a C where
27 % of the rows are active."""
STRIP = 128
"""Rows gathered at a time."""
SEARCHES = 4
"""Newton steps of a line search."""
MAX_CONJUGATE = 60
MAX_NEWTON = 30
STALLED = 5
"""Newton steps in which no problem came nearer: rounding allows no more."""
STOPPED = 0.8
"""Share of the asked gap at which a search stops; the rest is for its rounding."""


@dataclass
class State:
    """m problems on their way: (m, n) of the working type, but ``steps`` (m) int64.

    ``twice`` is 2 c, and 0 where a row is left out; ``steps`` counts products with an (n, n)
    matrix.
    """

    signs: torch.Tensor
    twice: torch.Tensor
    beta: torch.Tensor
    f: torch.Tensor
    steps: torch.Tensor

    def some(self, which: torch.Tensor) -> State:
        return State(*(value[which] for value in vars(self).values()))

    def copy(self) -> State:
        return State(*(value.clone() for value in vars(self).values()))

    def put(self, which: torch.Tensor, other: State) -> None:
        for name in ("beta", "f", "steps"):
            getattr(self, name)[which] = getattr(other, name)

    @property
    def margin(self) -> torch.Tensor:
        return 1 - self.signs * self.f

    @property
    def active(self) -> torch.Tensor:
        return (self.margin > 0) & (self.twice > 0)

    def move(self, t: torch.Tensor, step: torch.Tensor, change: torch.Tensor) -> None:
        self.beta = self.beta + t[:, None] * step
        self.f = self.f + t[:, None] * change
        self.steps = self.steps + 1


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b; on the CPU by numpy's OpenBLAS, 1.5 × as fast as torch's MKL on AMD's cores."""
    if a.device.type == "cpu":
        return torch.from_numpy(a.numpy() @ b.numpy())
    return a @ b


@dataclass(frozen=True)
class Leading:
    """The directions X̃ᵀ v / √λ in which rows vary most, orthonormal.

    Attributes:
        vectors: (n, k) v, near to eigenvectors of K.
        images: (n, k) K v.
        values: (k) λ = v K v.
    """

    vectors: torch.Tensor
    images: torch.Tensor
    values: torch.Tensor

    @classmethod
    def of(cls, gram: torch.Tensor) -> Leading:
        """By two steps of subspace iteration from a fixed beginning."""
        n = len(gram)
        fixed = torch.Generator().manual_seed(0)
        base = torch.randn(n, min(LEADING, n), generator=fixed).to(gram)
        for _ in range(2):
            base = torch.linalg.qr(product(gram, base))[0]
        images = product(gram, base)
        inner = product(base.T, images).double()
        values, turn = torch.linalg.eigh((inner + inner.T) / 2)
        real = values > 1e-6 * values[-1]  # the rest is rounding
        turn = turn[:, real].to(gram)
        return cls(product(base, turn), product(images, turn), values[real].to(gram))


def conjugate(
    state: State, gram: torch.Tensor, leading: Leading, scale: float, gap: float
) -> State:
    """Preconditioned nonlinear conjugate gradients (Polak–Ribière), until few rows are active.

    The preconditioner is (I + h X̃ᵀX̃)⁻¹ where X̃ᵀX̃ is known in the leading directions alone.
    With a = 2 c ξ of some coefficients, P - D(a) is half the squared length r K r of the
    gradient, so the gap is known at each step.

    Args:
        scale: h.
        gap: at which a problem is left.
    """
    result = state.copy()
    at = torch.arange(len(state.beta), device=state.beta.device)
    step = change = before = torch.zeros_like(state.beta)
    energy = torch.ones_like(state.beta[:, 0])
    shrink = scale / (1 + scale * leading.values)
    for _ in range(MAX_CONJUGATE):
        slack = state.margin.clamp_min(0)
        pulled = state.twice * slack
        primal = 0.5 * ((state.beta * state.f).sum(1) + (pulled * slack).sum(1))
        r = torch.addcmul(state.beta, pulled, state.signs, value=-1)
        part = product(r, leading.images) * shrink
        z = r - product(part, leading.vectors.T)
        kz = product(z, gram)
        now = (r * kz).sum(1)
        length = now + (part * product(r, leading.images)).sum(1)
        todo = (0.5 * length > gap * primal) & ~few(state)
        turn = ((now - (before * kz).sum(1)) / energy).clamp_min(0)[:, None]
        step, change = turn * step - z, turn * change - kz  # the first step is -z
        before, energy = r, torch.where(now > 0, now, 1.0)
        if not bool(todo.all()):
            result.put(at, state)
            at, state = at[todo], state.some(todo)
            step, change, before, energy = (v[todo] for v in (step, change, before, energy))
            if not at.numel():
                return result
        state.move(along(state, step, change), step, change)
    result.put(at, state)
    return result


def newton(state: State, gram: torch.Tensor, gap: float) -> State:
    """Newton's method; each problem's active rows' system (K_AA + 1 / 2c) is solved exactly.

    At the solution of a system every other coefficient is 0, and once the active rows stay
    the same it is the minimum.
    """
    result = state.copy()
    at = torch.arange(len(state.beta), device=state.beta.device)
    least, stalled = torch.full_like(state.beta[:, 0], torch.inf), 0
    for _ in range(MAX_NEWTON):
        reached = estimate(state)
        stalled = 0 if bool((reached < least[at]).any()) else stalled + 1
        least[at] = torch.minimum(least[at], reached)
        todo = (reached > gap) & (stalled < STALLED)
        if not bool(todo.all()):
            result.put(at, state)
            at, state = at[todo], state.some(todo)
            if not at.numel():
                return result
        step = exact_steps(state, gram)
        change = product(step, gram)
        state.move(along(state, step, change), step, change)
    result.put(at, state)
    return result


def exact_steps(state: State, gram: torch.Tensor) -> torch.Tensor:
    """(m, n) changes of coefficients to the solution of each problem's active rows."""
    active = state.active
    inside = torch.where(active, state.beta, 0.0)
    step = inside - state.beta  # what is not active goes to 0
    ridge = torch.where(active, 1 / state.twice, 0.0)
    # What is left to do is solved for: its rounding is smaller. In float32 not where rows
    # leave, which takes a product and is followed by another step.
    same = torch.ones_like(step[:, :1], dtype=torch.bool)
    gone = torch.zeros_like(step)
    if step.dtype == torch.float32:
        same = ~step.any(1, keepdim=True)
    elif bool(step.any()):
        gone = product(step, gram)
    known = torch.where(same, state.f + gone + inside * ridge, 0.0)
    right = torch.where(active, state.signs - known, 0.0)
    step -= torch.where(same, 0.0, inside)
    if bool((ridge == ridge[0]).all()):
        ranges = [slice(None)]  # one system for all, as at the beginning
    else:
        ranges = [slice(i, i + 1) for i in range(len(step))]
    for which in ranges:
        rows = active[which][0].nonzero()[:, 0]
        if rows.numel():
            system = square(gram, rows)
            system.diagonal().add_(ridge[which][0, rows])
            step[which, rows] += solved(system, right[which][:, rows].T).T
    return step


def square(gram: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Those rows and columns; on the CPU of the lower triangle only, of which it is made."""
    if gram.device.type != "cpu":
        return gram[rows[:, None], rows]
    index, matrix = rows.numpy(), gram.numpy()
    found = np.zeros((index.size, index.size), matrix.dtype)
    for begin in range(0, index.size, STRIP):
        end = min(begin + STRIP, index.size)
        # Whole rows first: they lie side by side.
        strip = matrix[:, : index[end - 1] + 1][index[begin:end]]
        found[begin:end, :end] = strip.take(index[:end], 1)
    return torch.from_numpy(found)


def solved(system: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The solution of a positive definite system for some right-hand sides, its columns."""
    if system.device.type == "cpu":
        # numpy's and scipy's OpenBLAS: torch's MKL takes twice as long on AMD's cores.
        matrix, vectors = system.numpy().T, right.numpy()  # as Fortran has it
        (solve,) = get_lapack_funcs(("posv",), (matrix, vectors))
        _, solution, failed = solve(matrix, vectors, lower=False)
        found = torch.from_numpy(np.ascontiguousarray(solution))
    else:
        factor, info = torch.linalg.cholesky_ex(system)
        found, failed = torch.cholesky_solve(right, factor), int(info)
    if not failed:
        return found
    # Rounding has made it indefinite.
    system = system.tril() + system.tril(-1).T
    if system.dtype != torch.float64:
        return solved(system.double(), right.double()).to(right)
    least: torch.Tensor = torch.linalg.lstsq(system, right).solution
    return least


def few(state: State) -> torch.Tensor:
    """(m) whether so few rows are active that their system is best solved exactly."""
    n = state.beta.shape[1]
    return state.active.sum(1) <= max(DIRECT_ROWS, DIRECT * n)


def estimate(state: State) -> torch.Tensor:
    """(m) relative duality gap, were ``beta`` times ``signs`` nowhere negative.

    With a = s β it is Σ (a - 2cξ)² / 4c over active rows and Σ a² / 4c - a (1 - s f) over
    the others. A negative a counts as if the objective fell by what its row still asks for.
    """
    margin, h = state.margin, state.twice
    a = state.signs * state.beta
    rest = torch.where(margin > 0, a - h * margin, a)
    here = torch.where(h > 0, rest**2 / (2 * h), torch.zeros_like(h))
    here = here + torch.where(margin > 0, 0.0, -a * margin).abs()
    slack = margin.clamp_min(0)
    primal = 0.5 * ((state.beta * state.f).sum(1) + (h * slack * slack).sum(1))
    return here.sum(1) / torch.where(primal > 0, primal, 1.0)


def along(state: State, step: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    """(m) how far along ``step``, which changes decisions by ``change``: the least objective.

    Newton's method on a convex, piecewise quadratic function of one number.
    """
    margin, slope = state.margin, state.signs * change
    weighted = state.twice * slope
    first, second = weighted * margin, weighted * slope
    linear, quadratic = (state.beta * change).sum(1), (step * change).sum(1)
    t = torch.zeros_like(linear)
    for _ in range(SEARCHES):
        inside = margin - t[:, None] * slope > 0
        below = quadratic + (inside * second).sum(1)
        # A step that changes no decision, as of rows that repeat, is taken as it is.
        t = torch.where(below > 0, ((inside * first).sum(1) - linear) / below, 1.0)
    return t


def bounds(
    signs: torch.Tensor,
    costs: torch.Tensor,
    beta: torch.Tensor,
    known: tuple[torch.Tensor, torch.Tensor],
    *,
    gap: float,
    sizes: torch.Tensor,
    lengths: Sequence[Callable[[torch.Tensor], torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """(m) primal and dual values, in float64, of (m, n) coefficients.

    s β, where it is positive, is a point of the dual, mostly so near that a bound on the length
    of what is left out is enough. Where it does not show the ``gap`` that length is looked
    for, if few rows are active; else 2 c ξ is tried, a point of the dual too.

    Args:
        known: (m, n) decisions of ``beta`` and (m) squared lengths of its weights.
        sizes: (n) lengths of the rows.
        lengths: (m) no less than the squared lengths of the weights of coefficients, each
            dearer and nearer than the one before.
    """
    f, size = known
    slack = (1 - signs * f).clamp_min(0)
    primal = 0.5 * size + (costs * slack**2).sum(1)
    inverse = torch.where(costs > 0, 0.5 / costs, 0.0)

    def dual(a: torch.Tensor, lifted: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        curvature = lifted + (a**2 * inverse).sum(1)
        return 0.5 * a.sum(1) ** 2 / torch.where(curvature > 0, curvature, 1.0)

    a = torch.where(costs > 0, (signs * beta).clamp_min(0), 0.0)
    rest = beta - a * signs
    taken = size - 2 * (f * rest).sum(1)
    found = dual(a, taken + (rest.abs() @ sizes) ** 2, inverse)
    for length in lengths:
        loose = primal - found > gap * primal
        if not bool(loose.any()):
            break
        pulled = 2 * costs[loose] * slack[loose]
        sparse = (pulled > 0).double().mean(1, keepdim=True) < DIRECT
        tried = torch.where(sparse, a[loose], pulled)
        rest = beta[loose] - tried * signs[loose]
        # What rounding does to the length of the rest is of its size, not of the whole's.
        lifted = size[loose] - 2 * (f[loose] * rest).sum(1) + length(rest)
        found[loose] = torch.maximum(found[loose], dual(tried, lifted, inverse[loose]))
    return primal, found
