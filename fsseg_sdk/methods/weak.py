"""Boxes and scribbles, made more of: what a shot's own prototypes find inside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Shots
from .parts import EPS

__all__ = ["refine_weak"]


def refine_weak(
    features: NDArray[np.float32],
    weights: NDArray[np.float32],
    shots: Shots,
    rows: NDArray[np.intp],
    threads: int | None,
) -> NDArray[np.float32]:
    """One prediction of the picture by its own prototypes, kept inside `possible` where it
    leaves anything of the box or scribble. weights: [rows, 2, h, w], foreground and background;
    returns the foregrounds."""
    planes = np.concatenate([weights[:, 0], weights[:, 1]])
    prototypes = ops.weighted_pool(features, planes[None], EPS, threads=threads)[0]
    cosines = ops.cosine_match(features, prototypes, 1.0, threads=threads)[0]
    found = shots.possible[rows] * (cosines[: len(rows)] > cosines[len(rows) :])
    refined = weights[:, 0].copy()
    for index in np.flatnonzero(shots.weak[rows]):
        if (found[index] * (refined[index] > 0)).sum() > 0:
            refined[index] = found[index]
    return refined
