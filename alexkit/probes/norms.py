"""What is done to features before a probe; whatever is fitted is fitted on training rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import avg_pool2d

from alexkit.errors import UnknownName, UsageError
from alexkit.probes.objective import Array

NORMS = ("none", "l2", "power", "power:P", "standardize", "pca:K")
POWER = 2.0
"""Of Razavian et al. 2014 (arXiv:1403.6382, §3.1): rows of length 1, then sign(x) |x|²."""

GOYAL_POOLS = {
    "conv1": (19, 4),
    "conv2": (12, 3),
    "conv3": (9, 1),
    "conv4": (9, 1),
    "conv5": (8, 1),
}
"""Layer -> kernel and stride of the average pooling that leaves about 9,000 numbers of each
(Goyal et al. 2019, as VISSL and FAIR's benchmark have it)."""


@dataclass(frozen=True)
class Norm:
    """``--norm`` as it was typed.

    Attributes:
        kind: none, l2, power, standardize or pca.
        value: P of ``power:P``, K of ``pca:K``; else 0.
        offset: what ``l2`` adds to the length it divides by.
    """

    kind: str
    value: float = 0.0
    offset: float = 0.0

    @classmethod
    def parse(cls, text: str, *, offset: float = 0.0) -> Norm:
        """Reads one of :data:`NORMS`.

        Raises:
            UnknownName: it is none of them.
            UsageError: P or K is no positive number.
        """
        kind, colon, number = text.partition(":")
        if kind + colon not in ("none", "l2", "power", "power:", "standardize", "pca:"):
            raise UnknownName("norm", text, NORMS)
        if not colon:
            return cls(kind, POWER if kind == "power" else 0.0, offset)
        try:
            value = float(int(number) if kind == "pca" else number)
        except ValueError:
            value = 0.0
        if not 0 < value < float("inf"):
            raise UsageError(
                f"--norm {text} has no positive number", hint="type e.g. pca:128 or power:0.5"
            )
        return cls(kind, value, offset)

    @property
    def turns(self) -> bool:
        """Whether it is the same in any coordinates with the same inner products."""
        return self.kind in ("none", "l2", "pca")

    def fit(self, train: npt.NDArray[np.floating]) -> FittedNorm:
        """What the (n, d) training rows say."""
        if self.kind == "standardize":
            rows = np.asarray(train, np.float64)
            spread = rows.std(axis=0)
            scale = 1.0 / np.where(spread > 0, spread, 1.0)
            return FittedNorm(self, mean=rows.mean(axis=0), scale=scale)
        if self.kind == "pca":
            rows = np.asarray(train, np.float64)
            mean = rows.mean(axis=0)
            return FittedNorm(self, mean=mean, axes=principal(rows - mean, int(self.value)))
        return FittedNorm(self)


@dataclass(frozen=True)
class FittedNorm:
    """A norm that knows what it needs of the training rows.

    Attributes:
        mean: (d) float64 of the training rows; empty where it is not needed.
        scale: (d) float64, 1 / standard deviation, 1 for constant columns; or empty.
        axes: (k, d) float64, orthonormal, of the largest variance; or empty.
    """

    norm: Norm
    mean: Array = field(default_factory=lambda: np.empty(0))
    scale: Array = field(default_factory=lambda: np.empty(0))
    axes: Array = field(default_factory=lambda: np.empty((0, 0)))

    def __call__(self, x: npt.NDArray[np.floating]) -> Array:
        """(n, d) rows into (n, d) or, by PCA, (n, k); float64."""
        rows = np.array(x, np.float64)
        kind = self.norm.kind
        if kind in ("l2", "power"):
            length = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(length > 0, length + self.norm.offset, 1.0)
        if kind == "power":
            rows = np.sign(rows) * np.abs(rows) ** self.norm.value
        if kind == "standardize":
            rows = (rows - self.mean) * self.scale
        if kind == "pca":
            rows = (rows - self.mean) @ self.axes.T
        return rows


def principal(centred: Array, count: int) -> Array:
    """(k, d) axes of the largest variance of (n, d) centred rows; k ≤ count of them vary."""
    n, d = centred.shape
    if d <= n:
        values, vectors = np.linalg.eigh(centred.T @ centred)
    else:
        values, vectors = np.linalg.eigh(centred @ centred.T)
    order = np.argsort(values)[::-1][:count]
    order = order[values[order] > 1e-12 * max(float(values.max()), 0.0)]
    if d <= n:
        return np.ascontiguousarray(vectors[:, order].T)
    return np.asarray((centred.T @ vectors[:, order] / np.sqrt(values[order])).T)


def pooled(layer: str, x_nchw: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """(N, C, H, W) averaged as in :data:`GOYAL_POOLS`, flattened; other layers flattened."""
    if layer not in GOYAL_POOLS or x_nchw.ndim != 4:
        return x_nchw.reshape(len(x_nchw), -1)
    kernel, stride = GOYAL_POOLS[layer]
    x = torch.from_numpy(np.ascontiguousarray(x_nchw, np.float32))
    return np.asarray(avg_pool2d(x, kernel, stride).flatten(1).numpy())
