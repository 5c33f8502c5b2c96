"""Several prototypes for one background: its cells in groups, each with a prototype of its own.

One mean over sky, road and houses is like none of them, and a small object then wins cells that
are none of its own. With a few parts, a cell is background where any part is more like it than
the class. Prototypes for parts of a class and its surroundings are the idea of PPNet (Liu et
al., ECCV 2020, which takes k-means centres, too).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import ops

__all__ = ["EPS", "gather", "split"]

EPS = 1e-12
"""Added to the sum of weights in cells: far below one pixel, so an empty map gives zero."""
_STEPS = 10
_INSIDE = 0.9
"""Of the heaviest cell's weight: from here on a cell is inside a region."""
_Array = NDArray[Any]


def split(
    features: NDArray[np.float32],
    weights: NDArray[np.float32],
    parts: int,
    *,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """The weights of a region as [parts, h, w], every cell in one part: k-means by cosine.

    features: [C, h, w] float32; weights: [h, w] float32, 0 outside the region. The first centre
    is the region's mean, every further one the cell least like those before it, so nothing is
    random; a cell that the region only touches starts no part, since it shows something else,
    too. A part is empty where the region has fewer different cells than parts.
    """
    flat = features.reshape(len(features), 1, -1)

    def pool(planes: _Array) -> _Array:
        return ops.weighted_pool(flat[None], planes[None, :, None], EPS, threads=threads)[0]

    def cosines(centres: _Array) -> _Array:
        return ops.cosine_match(flat[None], centres, 1.0, threads=threads)[0, :, 0]

    mass = weights.ravel()
    pull = mass * (mass >= _INSIDE * mass.max())
    planes = _assign(pool, cosines, lambda cell: flat[:, 0, cell], mass, pull, parts)
    return planes.reshape(parts, *weights.shape)


def gather(
    vectors: NDArray[np.float32], weights: NDArray[np.float64], parts: int
) -> NDArray[np.float64]:
    """[parts, C] prototypes out of those of many shots, by the same k-means, in double precision:
    a shot that is given twice must not tip a balance.

    vectors: [n, C] float32; weights: [n], 0 for a vector that stands for nothing. Zero rows stand
    for empty parts, and where no weight is above 0 all rows are zero.
    """
    points = vectors.astype(np.float64)
    norms = np.linalg.norm(points, axis=1, keepdims=True)
    unit = np.divide(points, norms, out=np.zeros_like(points), where=norms > 0)

    def pool(planes: _Array) -> _Array:
        return (planes @ points) / (planes.sum(axis=1, keepdims=True) + EPS)

    def cosines(centres: _Array) -> _Array:
        length = np.linalg.norm(centres, axis=1, keepdims=True)
        return (centres @ unit.T) / np.maximum(length, EPS)

    # a prototype may start a part however light it is: its mass is halved if its shot comes twice
    return pool(_assign(pool, cosines, lambda row: points[row], weights, weights > 0, parts))


def _assign(
    pool: Callable[[_Array], _Array],
    cosines: Callable[[_Array], _Array],
    vector: Callable[[int], _Array],
    weights: _Array,
    pull: _Array,
    parts: int,
) -> _Array:
    """[parts, n]: each of n weights in one row. pool: [P, n] -> [P, C] weighted means;
    cosines: [P, C] -> [P, n]; vector: the n-th, [C]; pull: [n], what counts for a start."""
    planes = weights[None]
    if parts == 1:
        return planes
    centres = pool(planes)
    while len(centres) < parts:
        unlike = (1 - cosines(centres).max(axis=0)) * pull
        centres = np.concatenate([centres, vector(int(unlike.argmax()))[None]])
    for step in range(_STEPS + 1):
        nearest = cosines(centres).argmax(axis=0)
        planes = np.where(nearest == np.arange(parts)[:, None], weights, weights.dtype.type(0))
        if step < _STEPS:
            some = planes.any(axis=1, keepdims=True)
            centres = np.where(some, pool(planes), centres)
    return planes
