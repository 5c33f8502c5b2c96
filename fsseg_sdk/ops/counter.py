"""Random words that are a function of where they stand: the same on every machine and thread count.

csrc/online_mlp/dropout.h is the same in C++. A word belongs to a seed, a stream (an iteration of
``online_mlp_fit``, an array of ``online_mlp_start``), a row and a place in the row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_GOLDEN64, _GOLDEN32 = 0x9E3779B97F4A7C15, 0x9E3779B9
_MASK64 = 2**64 - 1

FIRST_START_STREAM = 2**32
"""Streams below it are iterations."""


def random_words(seed: int, stream: int, rows: NDArray[Any], count: int) -> NDArray[np.uint32]:
    """``[len(rows), count]`` words of the rows with these numbers."""
    key = _mix(seed + _mix((stream + 1) * _GOLDEN64))
    with np.errstate(over="ignore"):  # of whole numbers: modulo 2^64 and 2^32 is what is meant
        row = (np.asarray(rows, np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN64) + np.uint64(key)
        row = (row ^ (row >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        row = (row ^ (row >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        row ^= row >> np.uint64(31)
        low = (row & np.uint64(2**32 - 1)).astype(np.uint32)[:, None]
        high = (row >> np.uint64(32)).astype(np.uint32)[:, None]
        x = np.arange(count, dtype=np.uint32) * np.uint32(_GOLDEN32) + low
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D) + high
        x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
        return np.asarray(x ^ (x >> np.uint32(16)), np.uint32)


def dropout_mask(
    seed: int, iteration: int, cells: NDArray[Any], hidden: int, dropout: float
) -> NDArray[np.bool_]:
    """``[len(cells), hidden]``: which units of these cells ``online_mlp_fit`` keeps."""
    threshold = min(int(np.floor(dropout * 2**32 + 0.5)), 2**32 - 1)
    return random_words(seed, iteration, cells, hidden) >= np.uint32(threshold)


def uniform(seed: int, stream: int, shape: tuple[int, int], bound: float) -> NDArray[np.float32]:
    """``shape`` float32 between -bound and bound, of 24 bits."""
    words = random_words(seed, FIRST_START_STREAM + stream, np.arange(shape[0]), shape[1])
    unit = (words >> np.uint32(8)).astype(np.float64) * 2.0**-23 - 1.0
    return (unit * bound).astype(np.float32)


def _mix(x: int) -> int:
    """The finalizer of splitmix64."""
    x &= _MASK64
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK64
    return x ^ (x >> 31)
