"""Single cells as training samples: which of them, and how many at most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Samples", "balanced", "spread", "thinned"]


@dataclass(frozen=True)
class Samples:
    """features: [B, C, h, w] float32. weights: [B, N+1, h, w] float32, how much a cell counts as
    each class, background first; a cell with none is no sample."""

    features: NDArray[np.float32]
    weights: NDArray[np.float32]

    @classmethod
    def of_shots(
        cls,
        cells: NDArray[np.float32],
        weights: NDArray[np.float32],
        way: NDArray[np.int64],
        n_ways: int,
    ) -> Samples:
        """cells: [S, C, n]; weights: [S, 2, n] of foreground and background; way: [S]."""
        shots, _, count = cells.shape
        planes = np.zeros((shots, n_ways + 1, 1, count), np.float32)
        planes[:, 0, 0] = weights[:, 1]
        planes[np.arange(shots), way + 1, 0] = weights[:, 0]
        return cls(cells[:, :, None], planes)


def balanced(
    samples: Sequence[Samples], balance: Literal["class", "cell"]
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """(features, weights) of each, with weights whose sum over all is 1: every class that has any
    weighs the same, or every cell counts as it is."""
    mass = sum(s.weights.sum(axis=(0, 2, 3), dtype=np.float64) for s in samples)
    if balance == "class":
        some = mass > 0
        share = np.divide(1.0, mass * some.sum(), out=np.zeros_like(mass), where=some)
    else:
        share = np.full_like(mass, 1.0 / mass.sum())
    factor = share.astype(np.float32)[:, None, None]
    return [(s.features, s.weights * factor) for s in samples]


def spread(chosen: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """At most `most` of the true cells of [n], evenly spaced in their order; 0 keeps all."""
    index = np.flatnonzero(chosen)
    if not most or len(index) <= most:
        return chosen
    kept = np.zeros_like(chosen)
    kept[index[np.arange(most) * len(index) // most]] = True
    return kept


def thinned(weights: NDArray[np.float32], most: int) -> NDArray[np.int64]:
    """[most] cells of a picture whose grid weights are [2, n] (foreground, background): half of
    them the heaviest of the foreground, evenly spaced, the rest background. Fewer than `most`
    where there are not that many; then a cell of no weight fills up."""
    count = weights.shape[1]
    if not most or most >= count:
        return np.arange(count)
    inside = weights[0] >= weights[0].max() / 2
    shown = spread(inside & (weights[0] > 0), most // 2)
    scene = spread((weights[1] > weights[0]) & ~shown, most - int(shown.sum()))
    index = np.flatnonzero(shown | scene)
    free = np.flatnonzero(~(shown | scene))[: most - len(index)]
    return np.concatenate([index, free])
