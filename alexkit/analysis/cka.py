"""Centred kernel alignment with the linear kernel, without bias.

CKA(K, L) = HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)) of Kornblith, Norouzi, Lee & Hinton 2019
(arXiv:1905.00414), with the unbiased estimate of HSIC by Song et al. 2012 (JMLR 13, eq. 5),
as Nguyen, Raghu & Kornblith 2021 (arXiv:2010.15327, §3) use it: the plain one grows with the
width of a layer where stimuli are few.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alexkit.analysis.condensed import Array, Condensed, inner_products, normalised
from alexkit.analysis.gram import Products

LEAST_ROWS = 4
"""The unbiased estimate divides by n - 3."""


def unbiased_cka(kernels: Sequence[Condensed | Products], sums: Sequence[Array]) -> Array:
    """(L, L) float64 alignment of L layers; NaN where a layer tells no stimuli apart.

    Args:
        kernels: L condensed kernels of n rows, (n (n - 1) / 2); they may be of
            columns that were centred, which leaves the estimate as it is.
        sums: L times (n) float64, the sum of each row of a kernel without its diagonal.
    """
    n = sums[0].size
    rows = np.stack(sums)
    total = rows.sum(axis=1)
    hsic = 2 * inner_products(kernels)
    hsic += np.outer(total, total) / ((n - 1) * (n - 2))
    hsic -= 2 / (n - 2) * (rows @ rows.T)
    return normalised(hsic)
