"""What a support says about its own prototypes: what presence scores are relative to."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import State
from .descriptors import SupportFacts

__all__ = ["mean_of", "support_facts"]


def support_facts(
    state: State, n_ways: int, prototypes: NDArray[np.float32], parts: int
) -> SupportFacts:
    """Cosines of the support to prototypes, by class; means over its shots. A region's cosine to
    the background is that of its mean to the part most like it.

    state: PANet's, of the shots. prototypes: [parts + N, C] float32, the background's parts first.
    """
    arrays = state.arrays
    rows_of = [np.flatnonzero(state.way == way) for way in range(n_ways)]
    unit = _unit(prototypes.astype(np.float64))
    mass = arrays["background_mass"].astype(np.float64)
    total = mass.sum(axis=1, keepdims=True)
    weight = np.divide(mass, total, out=np.zeros_like(mass), where=total > 0)
    foreground = _best_part(arrays["foreground_unit"] @ unit.T, parts)  # [S, 1 + N]
    by_part = _best_part(arrays["background_unit"] @ unit.T, parts)  # [S, parts, 1 + N]
    background = (weight[..., None] * by_part).sum(axis=1)
    share = arrays["foreground_share"][:, None].astype(np.float64)
    whole = share * foreground + (1 - share) * background
    columns: list[list[float]] = []
    for way, rows in enumerate(rows_of, 1):
        own, scene, all_of_it = (mean_of(maps[rows]) for maps in (foreground, background, whole))
        explained = share[rows, 0] * foreground[rows, way]
        explained += (1 - share[rows, 0]) * background[rows, 0]
        margin = own[way] - np.delete(own, way).max()
        to_scene = float((unit[:parts] @ unit[parts + way - 1]).max())
        fixed = (to_scene, float(len(rows)))
        columns.append([own[way], margin, scene[0], all_of_it[way], explained.mean(), *fixed])
    return SupportFacts(*np.array(columns, np.float32).T)


def _best_part(cosines: NDArray[Any], parts: int) -> NDArray[np.float64]:
    """[..., parts + N] -> [..., 1 + N]."""
    scene = cosines[..., :parts].max(axis=-1, keepdims=True)
    return np.concatenate([scene, cosines[..., parts:]], axis=-1)


def mean_of(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Over the first axis, in double precision."""
    result: NDArray[np.float64] = rows.mean(axis=0, dtype=np.float64)
    return result


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    unit: NDArray[np.float64] = np.divide(
        vectors, norms, out=np.zeros_like(vectors), where=norms > 0
    )
    return unit
