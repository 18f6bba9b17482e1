"""Steps of many SVM problems at once, in terms of the Gram matrix of their rows.

The weights of a solution are a sum of rows, u = Σ β_i x̃_i, so decisions are f = β K with the
Gram matrix K = X̃ X̃ᵀ (n, n), and the objective is piecewise quadratic in β (Chapelle,
Training a support vector machine in the primal, Neural Computation 19, 2007). With
ξ = max(0, 1 - s f) its gradient is X̃ᵀ r, r = β - 2 c ξ s. Problems are rows of (m, n)
matrices, and a step of all of them is one product with an (n, n) matrix.

Two kinds of step, by how many rows are inside the margin ("active"). Many: conjugate gradients
preconditioned by the Hessian in which all rows are active, whose inverse all classes and folds
at one C share. Few: Newton's method, the active rows' system solved exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy.linalg import get_lapack_funcs

DIRECT = 0.14
"""Share of active rows up to which their system is solved exactly."""
DIRECT_ROWS = 256
"""As many active rows are always solved exactly."""
SEARCHES = 4
"""Newton steps of a line search."""
MAX_CONJUGATE = 60
MAX_NEWTON = 60
LOOSE = 0.99
"""Share of the primal value below which a dual value says little."""
CHECKED = 0.25
"""Share of the asked gap that is aimed at, for what is estimated, not certified."""


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


def conjugate(state: State, inverse: torch.Tensor, scale: float, gap: float) -> State:
    """Preconditioned nonlinear conjugate gradients (Polak–Ribière), until few rows are active.

    With M = I + h X̃ᵀX̃ the preconditioned gradient is M⁻¹ X̃ᵀ r = X̃ᵀ z, z = (I + h K)⁻¹ r, and
    K z = (r - z) / h needs no product of its own.

    Args:
        inverse: (n, n), (I + scale·K)⁻¹.
        scale: h.
        gap: a problem is left when its estimated distance from the minimum, relative to its
            objective, is below this.
    """
    result = state.copy()
    at = torch.arange(len(state.beta), device=state.beta.device)
    step = change = before = torch.zeros_like(state.beta)
    energy = torch.ones_like(state.beta[:, 0])
    for _ in range(MAX_CONJUGATE):
        slack = state.margin.clamp_min(0)
        share = (state.active.sum(1) / (state.twice > 0).sum(1).clamp_min(1)).clamp_min(1e-3)
        pulled = state.twice * slack
        r = state.beta - pulled * state.signs
        z = product(r, inverse)
        kz = (r - z) / scale
        now = (r * kz).sum(1)
        primal = 0.5 * ((state.beta * state.f).sum(1) + (pulled * slack).sum(1))
        # The all-active Hessian is at most 1 / share of the true one.
        todo = (0.5 * now > gap * share * primal) & ~few(state)
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
    for _ in range(MAX_NEWTON):
        todo = estimate(state) > gap
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
    gone = product(step, gram) if bool(step.any()) else step
    ridge = torch.where(active, 1 / state.twice, 0.0)
    right = torch.where(active, state.signs - state.f - gone - inside * ridge, 0.0)
    for i in range(len(step)):
        rows = active[i].nonzero()[:, 0]
        if rows.numel():
            system = gram[rows[:, None], rows]
            system.diagonal().add_(ridge[i, rows])
            step[i, rows] += solved(system, right[i, rows])
    return step


def solved(system: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The solution of a positive definite system, which may be overwritten."""
    if system.device.type == "cpu":
        matrix, vector = system.numpy().T, right.numpy()  # as Fortran has it
        (solve,) = get_lapack_funcs(("posv",), (matrix, vector))
        _, solution, failed = solve(matrix, vector, lower=True)
        found = torch.from_numpy(solution)
    else:
        factor, info = torch.linalg.cholesky_ex(system)
        found, failed = torch.cholesky_solve(right[:, None], factor)[:, 0], int(info)
    if not failed:
        return found
    # Rounding has made it indefinite.
    least: torch.Tensor = torch.linalg.lstsq(system.double(), right.double()[:, None]).solution
    return least[:, 0].to(right)


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
    length: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """(m) primal and dual values, in float64, of (m, n) coefficients.

    Where s β is nowhere negative it is a point of the dual; 2 c ξ is one everywhere, and is
    tried where the first says little.

    Args:
        known: (m, n) decisions of ``beta`` and (m) ``length`` of it.
        length: (m) squared lengths of the weights of coefficients.
    """
    f, size = known
    slack = (1 - signs * f).clamp_min(0)
    primal = 0.5 * size + (costs * slack**2).sum(1)
    inverse = torch.where(costs > 0, 0.5 / costs, 0.0)

    def dual(a: torch.Tensor, lifted: torch.Tensor) -> torch.Tensor:
        curvature = lifted + (a**2 * inverse).sum(1)
        return 0.5 * a.sum(1) ** 2 / torch.where(curvature > 0, curvature, 1.0)

    a = signs * beta
    found = dual(a, size)
    found[((a < 0) | ((a != 0) & (costs == 0))).any(1)] = 0.0
    loose = found < LOOSE * primal
    if bool(loose.any()):
        other = 2 * costs[loose] * slack[loose]
        inverse = inverse[loose]
        lifted = length(other * signs[loose])
        found[loose] = torch.maximum(found[loose], dual(other, lifted))
    return primal, found
