"""Inner products of all rows with all rows, made once; distances and kernels follow from them.

A layer is read once, in slabs of columns, so that neither the layer nor a second n × n matrix
has to fit the memory: 4 n² bytes and one slab do (8 n² up to 4,096 rows). All that is given
back is condensed, see :mod:`alexkit.analysis.condensed`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg.blas import dsyrk, ssyrk

from alexkit.choices import Metric

Array = npt.NDArray[np.float64]
Single = npt.NDArray[np.float32]
Products = npt.NDArray[np.float32] | npt.NDArray[np.float64]

WIDE_ROWS = 4096
"""Up to so many rows products are of float64, 128 MB; of more, of float32."""


@dataclass(frozen=True)
class Gram:
    """Inner products of n rows of d numbers, in a form from which all metrics follow.

    With μ the mean row, xᵢ·xⱼ = cᵢⱼ + aᵢ + aⱼ + s. The columns are centred before they are
    multiplied, which keeps the last digits of products where all rows have much in common, as
    rows after a ReLU do.

    Attributes:
        centred: (n, n) float64, or float32 of more than :data:`WIDE_ROWS` rows,
            c = (x - μ)(x - μ)ᵀ; only what is below the diagonal counts.
        norms: (n) float64, the diagonal of c.
        along: (n) float64, a = (x - μ)·μ.
        mean_norm: s = μ·μ.
        sums: (n) float64, sum of each row.
        columns: d.
    """

    centred: Products
    norms: Array
    along: Array
    mean_norm: float
    sums: Array
    columns: int

    def __len__(self) -> int:
        return self.norms.size

    def below(self, row: int) -> Array:
        """cᵢⱼ of one row i with every j > i, (n - 1 - i) float64."""
        return self.centred[row + 1 :, row].astype(np.float64)

    def distances(self, metric: Metric) -> Iterator[Single]:
        """The condensed distances, a row's share at a time, float32, never below 0.

        ``correlation`` is 1 - Pearson's r between two rows (Kriegeskorte, Mur & Bandettini
        2008, the usual choice for RDMs), ``cosine`` 1 - their cosine, ``euclidean`` the length
        of their difference. Undefined ones, see :meth:`undefined`, are NaN.
        """
        own = self._lengths(metric)
        with np.errstate(invalid="ignore", divide="ignore"):
            for row in range(len(self)):
                after = slice(row + 1, None)
                c = self.below(row)
                if metric is Metric.EUCLIDEAN:
                    found = np.sqrt(np.maximum(own[row] + own[after] - 2 * c, 0))
                else:
                    product = c + self.along[row] + self.along[after] + self.mean_norm
                    if metric is Metric.CORRELATION:
                        product -= self.sums[row] * self.sums[after] / self.columns
                    found = np.maximum(1 - product / np.sqrt(own[row] * own[after]), 0)
                yield found.astype(np.float32)

    def undefined(self, metric: Metric) -> npt.NDArray[np.int64]:
        """The rows that a metric says nothing of: constant ones, or those of zeros."""
        if metric is Metric.EUCLIDEAN:
            return np.empty(0, np.int64)
        largest = np.maximum(self._lengths(Metric.COSINE), 1e-300)
        return np.flatnonzero(self._lengths(metric) <= 1e-12 * largest)

    def _lengths(self, metric: Metric) -> Array:
        """(n) squared lengths of the rows as the metric sees them."""
        if metric is Metric.EUCLIDEAN:
            return self.norms
        whole = self.norms + 2 * self.along + self.mean_norm
        if metric is Metric.CORRELATION:
            return np.asarray(whole - self.sums**2 / self.columns)
        return np.asarray(whole)

    def kernel_sums(self) -> Array:
        """(n) float64: the sum of each row of c without its diagonal."""
        total = np.zeros(len(self))
        for row in range(len(self)):
            c = self.below(row)
            total[row] += c.sum()
            total[row + 1 :] += c
        return total


def gram(slabs: Iterable[Single], n: int) -> Gram:
    """Adds up the inner products over slabs of columns.

    Args:
        slabs: (n, k) float32 each, all columns once; a slab may be overwritten.
        n: rows.
    """
    wide = n <= WIDE_ROWS
    add = dsyrk if wide else ssyrk
    centred = np.zeros((n, n), np.float64 if wide else np.float32, order="F")
    norms, along, sums = np.zeros(n), np.zeros(n), np.zeros(n)
    mean_norm, columns = 0.0, 0
    for slab in slabs:
        x = slab.astype(centred.dtype, copy=False)
        # What is taken away is the mean as x has it, so that is what is told of it.
        mean = x.mean(axis=0, dtype=np.float64).astype(x.dtype)
        sums += x.sum(axis=1, dtype=np.float64)
        x -= mean
        norms += np.einsum("ij,ij->i", x, x, dtype=np.float64)
        along += x @ mean.astype(np.float64)
        mean_norm += float(mean.astype(np.float64) @ mean)
        columns += x.shape[1]
        # BLAS counts columns first: xᵀ as it lies in memory is its (k, n). It adds in place.
        centred = add(1.0, x.T, beta=1.0, c=centred, trans=1, lower=1, overwrite_c=1)
    return Gram(centred, norms, along, mean_norm, sums, columns)
