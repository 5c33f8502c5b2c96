"""Single cells as training samples: which of them, how many at most, and of which classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Shots, State, check_state

__all__ = ["CELLS", "Samples", "balanced", "check_cells", "labelled_cells", "spread", "thinned"]

CELLS = ("cells", "cell_weights")
"""Arrays of a state: the cells of every shot, [S, C, n], and how much each is foreground and
background, [S, 2, n]."""


def labelled_cells(
    shots: Shots, features: NDArray[np.float32], most: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`CELLS` of these shots. features: [I, C, h, w] of their pictures. most: cells of a shot, as
    `thinned` chooses them; 0 is all."""
    flat = features.reshape(*features.shape[:2], -1)
    weights = np.stack([shots.foreground, shots.background], axis=1)
    weights = np.maximum(weights, 0)  # rounding may leave -1e-14 where a mask is empty
    weights = weights.reshape(*weights.shape[:2], -1)
    cells = [thinned(own, most) for own in weights]
    kept = [
        np.take(flat[picture], index, axis=1)
        for picture, index in zip(shots.picture, cells, strict=True)
    ]
    marked = [np.take(own, index, axis=1) for own, index in zip(weights, cells, strict=True)]
    return np.stack(kept), np.stack(marked)


def check_cells(state: State, channels: int, grid: tuple[int, int], unit: bool = False) -> State:
    """The state without `CELLS`; InputError unless these could have been made on this grid with
    these channels (-1: any number of them). unit: all cells of the grid, at length 1 or 0."""
    arrays = dict(state.arrays)
    own = {name: arrays.pop(name) for name in CELLS if name in arrays}
    every = grid[0] * grid[1]
    count = own["cells"].shape[-1] if "cells" in own and own["cells"].ndim == 3 else every
    count = every if unit else min(max(count, 1), every)
    check_state(State(state.way, own), {"cells": (channels, count), "cell_weights": (2, count)})
    cells, weights = (own[name] for name in CELLS)
    if not cells.size:
        raise _unfit("cells", "one number a cell or more", "none")
    if unit and not _within(cells, -1.01, 1.01):
        raise _unfit("cells", "cells of length 1 or 0", f"numbers up to {np.abs(cells).max():g}")
    # a picture of fewer pixels than cells: the weight of one pixel is that of several cells
    if not _within(weights, 0.0, 1.01 * every):
        got = f"{weights.min():g} to {weights.max():g}"
        raise _unfit("cell_weights", f"numbers from 0 to {every}", got)
    empty = np.flatnonzero(~weights[:, 0].any(axis=1))
    if len(empty):
        raise _unfit("cell_weights", "some foreground in every shot", f"none in {len(empty)}")
    return State(state.way, arrays)


def _within(array: NDArray[np.float32], low: float, high: float) -> bool:
    """NaN is not."""
    return bool(array.min() >= low and array.max() <= high)


def _unfit(name: str, expected: str, got: str) -> InputError:
    return InputError(
        f"state array {name!r}",
        expected=expected,
        got=got,
        remedy="The state was not made by this method and encoder; prepare it again.",
    )


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
