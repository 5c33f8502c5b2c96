"""How much of the grid a picture covers: rows and columns of cells from the top left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Extent", "coverage", "extents_of"]

Extent = tuple[float, float]


def extents_of(extents: Sequence[Extent] | None, features: NDArray[np.float32]) -> list[Extent]:
    """One for each of the pictures of features [B, C, h, w]; None is all of the grid."""
    grid = (features.shape[2], features.shape[3])
    return [grid] * len(features) if extents is None else list(extents)


def coverage(extent: Extent, grid: tuple[int, int]) -> NDArray[np.float32]:
    """[h, w] in 0..1: the part of each cell that a picture covers."""
    rows, columns = (
        np.clip(size - np.arange(cells), 0.0, 1.0) for size, cells in zip(extent, grid, strict=True)
    )
    return np.outer(rows, columns).astype(np.float32)
