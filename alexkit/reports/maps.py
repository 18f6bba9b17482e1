"""Features as points of a plane. scikit-learn's t-SNE and the optional UMAP live here."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from alexkit.extras import extra

Array = npt.NDArray[np.float64]

BEFORE = 50
"""Principal components that t-SNE and UMAP begin with, as van der Maaten & Hinton (JMLR
2008, §4.2) have it."""
PERPLEXITY = 30.0
"""Of t-SNE, scikit-learn's default; a third of the rows where there are fewer than 91."""


def principal(x: npt.NDArray[Any], count: int) -> tuple[Array, Array]:
    """(n, d) rows in their first ``count`` principal components, (n, count), and the share
    of the variance that each explains, (count); both float64.

    Exact, from the (n, n) or (d, d) products, whichever is smaller; signs are settled so that
    the largest weight of an axis is positive. Axes that the rows do not span are zero.
    """
    rows = np.asarray(x, np.float64).reshape(len(x), -1)
    rows = rows - rows.mean(axis=0)
    out, shares = np.zeros((len(rows), count), np.float64), np.zeros(count)
    total = float((rows**2).sum())
    if total == 0:
        return out, shares
    wide = rows.shape[1] > len(rows)
    values, vectors = np.linalg.eigh(rows @ rows.T if wide else rows.T @ rows)
    order = np.argsort(-values)[: min(count, len(values))]
    values = np.maximum(values[order], 0.0)
    vectors = vectors[:, order]
    projected = vectors * np.sqrt(values) if wide else rows @ vectors
    axes = rows.T @ vectors if wide else vectors
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)[0]
    kept = len(order)
    out[:, :kept] = projected * np.where(largest < 0, -1.0, 1.0)
    shares[:kept] = values / total
    return out, shares


def tsne(points: Array, seed: int) -> Array:
    """(n, 2) by t-SNE on the first :data:`BEFORE` :func:`principal` components; n >= 4.

    In one thread, 4 ms a row: several wait for each other at every step, and where other
    programs compute as well that took 60 times as long.
    """
    begin = _scaled(points)
    if not begin.any():  # scikit-learn's ends the process where all rows are equal
        return np.zeros((len(begin), 2))
    perplexity = min(PERPLEXITY, (len(begin) - 1) / 3)
    made = TSNE(2, perplexity=perplexity, init="pca", random_state=seed)
    with threadpool_limits(1):
        return np.asarray(made.fit_transform(begin), np.float64)


def umap(points: Array, seed: int) -> Array:
    """(n, 2) by UMAP on the first :data:`BEFORE` :func:`principal` components.

    Raises:
        UsageError: the extra is not installed.
    """
    made = extra("umap", "--umap", "umap", "umap-learn").UMAP(random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numba and of scikit-learn's newer names
        return np.asarray(made.fit_transform(_scaled(points)), np.float64)


def _scaled(points: Array) -> npt.NDArray[np.float32]:
    """With 1 as the largest value: neither map depends on the scale, and squares of very large
    features would not be finite."""
    largest = float(np.abs(points).max())
    return (points / largest if largest > 0 else points).astype(np.float32)
