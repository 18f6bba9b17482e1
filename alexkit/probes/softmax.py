"""Multinomial logistic regression on many rows: one linear function a class, a softmax over
them, an L2 penalty on the weights."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

from alexkit.probes.objective import Array
from alexkit.probes.solver import one_torch_thread
from alexkit.probes.svm import Labels, LinearModel

TOLERANCE = 1e-4
"""Of the largest entry of the mean loss's gradient, the rows having a mean square of 1."""
ITERATIONS = 300
MANY = 2_000_000
"""Numbers in the rows from which on products are worth several threads."""


@dataclass(frozen=True)
class Rows:
    """(n, d) rows, less their mean and over the root of their mean square length, in which form
    the search is quick whatever the layer; or as they are."""

    centred: Tensor
    mean: Tensor
    length: float

    @classmethod
    def of(cls, x: Tensor) -> Rows:
        """Of (n, d) float32, finite."""
        mean = x.mean(dim=0)
        length = float(x.square().sum(dim=1).mean().sqrt()) or 1.0
        return cls((x - mean) / length, mean, length)

    @classmethod
    def unscaled(cls, x: Tensor) -> Rows:
        """Of (n, d), in whose type products are computed."""
        return cls(x, x.new_zeros(x.shape[1]), 1.0)


def fit_softmax(
    rows: Rows,
    y: Labels,
    c: float,
    *,
    importance: Array | None = None,
    start: LinearModel | None = None,
    tolerance: float = TOLERANCE,
    iterations: int = ITERATIONS,
) -> LinearModel:
    """½ ‖W‖² + C Σ log loss, intercepts free, for (n) labels of K ≥ 2 classes.

    Args:
        rows: what is fitted; the penalty is on the weights of these scaled rows, so that one
            C means the same on every layer.
        c: the price of the loss, > 0.
        importance: (n) what the loss of each row is multiplied by; None is 1.
        start: a model of the same rows to begin at, say of a smaller C.
        tolerance: see :data:`TOLERANCE`; a larger one will do to rank several C.
        iterations: of L-BFGS at the most.

    Returns:
        A model that takes rows as they were before they were scaled.
    """
    labels, codes = np.unique(y, return_inverse=True)
    x, kind = rows.centred, rows.centred.dtype
    k, (n, d) = labels.size, x.shape
    hot = torch.nn.functional.one_hot(torch.from_numpy(codes), k).to(kind)
    weight = x.new_ones(n) if importance is None else torch.from_numpy(importance).to(kind)

    def loss(flat: Array) -> tuple[float, Array]:
        w = torch.from_numpy(flat[: k * d]).view(k, d)
        b = torch.from_numpy(flat[k * d :])
        scores = x @ w.to(kind).T + b.to(kind)
        logs = torch.log_softmax(scores, dim=1)
        off = (logs.exp() - hot) * weight[:, None]
        value = -(weight @ (logs * hot).sum(dim=1)).double() + 0.5 * w.square().sum() / c
        slope = (off.T @ x).double() + w / c
        gradient = torch.cat([slope.flatten(), off.sum(dim=0).double()])
        return float(value) / n, gradient.numpy() / n

    begin = np.zeros(k * (d + 1)) if start is None else _scaled(start, rows)
    options = {"maxiter": iterations, "gtol": tolerance, "maxcor": 20}
    with one_torch_thread() if n * d < MANY else nullcontext():
        found = minimize(loss, begin, jac=True, method="L-BFGS-B", options=options).x
    weights = found[: k * d].reshape(k, d) / rows.length
    bias = found[k * d :] - weights @ rows.mean.double().numpy()
    return LinearModel.of(labels, weights, bias, c, None)


def _scaled(model: LinearModel, rows: Rows) -> Array:
    bias = model.bias + model.weights @ rows.mean.double().numpy()
    return np.concatenate([(model.weights * rows.length).ravel(), bias])


def temperature(scores: Array, y: Labels) -> float:
    """The factor that makes the softmax of (n, K) scores most likely for (n) labels, each the
    column of its class (Guo et al. 2017, arXiv:1706.04599, its inverse); the largest score
    stays the largest."""
    rows, told = torch.from_numpy(scores), torch.from_numpy(y)

    def loss(log: float) -> float:
        factor = float(np.exp(log))
        return float(torch.nn.functional.cross_entropy(factor * rows, told))

    found = minimize_scalar(loss, bounds=(-3, 3), method="bounded")
    return float(np.exp(found.x))
