"""Random numbers as a pure function of (seed, epoch, row), without a generator's state.

What a row gets does not depend on the rows before it, the batch it is in, the number of
threads or the number of processes; so a run continues exactly from two integers.

The hash is the finaliser of SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014, figure 12 and section 5), the step is its golden gamma.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Reals = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_GAMMA = 0x9E3779B97F4A7C15
_WORD = 0xFFFFFFFFFFFFFFFF


def words(purpose: str, seed: int, epoch: int, rows: Rows, count: int) -> Words:
    """Independent uniform 64-bit words.

    Args:
        purpose: different uses of the same row draw different words.
        seed: any integer.
        epoch: any integer.
        rows: (N) int64.
        count: words for each row.

    Returns:
        (N, count) uint64.
    """
    key = int.from_bytes(purpose.encode(), "little")
    state = np.zeros(1, np.uint64)
    while key:
        state, key = _mixed(state ^ np.uint64(key & _WORD)), key >> 64
    state = _mixed(state ^ np.uint64(seed & _WORD))
    state = _mixed(state ^ np.uint64(epoch & _WORD))
    state = _mixed(state ^ rows.astype(np.uint64))
    steps = np.array([(_GAMMA * n) & _WORD for n in range(1, count + 1)], np.uint64)
    return _mixed(state[:, None] + steps)


def uniform(bits: Words) -> Reals:
    """(…) float64 in [0, 1), 53 bits each."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(bits: Words, bound: int) -> Rows:
    """(…) int64 from 0 to ``bound`` - 1; ``bound`` up to 2^31, bias below 2^-32."""
    return ((bits >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def normal(bits: Words) -> Reals:
    """Standard normals by Box and Muller (1958), two words each: (N, 2 k) -> (N, k)."""
    first, second = uniform(bits[:, 0::2]), uniform(bits[:, 1::2])
    radius = np.sqrt(-2.0 * np.log1p(-first))
    values: Reals = radius * np.cos(2.0 * np.pi * second)
    return values


def _mixed(state: Words) -> Words:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Words = state ^ (state >> np.uint64(31))
    return mixed
