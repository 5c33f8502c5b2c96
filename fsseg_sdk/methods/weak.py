"""Boxes and scribbles, made more of: what a shot's own prototypes find inside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Shots
from .parts import EPS

__all__ = ["refine_weak"]


def refine_weak(shots: Shots, threads: int | None) -> Shots:
    """The same shots, with other foregrounds where they are boxes or scribbles: one prediction of
    the picture by the shot's own prototypes, kept inside `possible`, where it leaves anything of
    the box or scribble. They count as masks from then on."""
    foreground = shots.foreground.copy()
    for picture in np.unique(shots.picture[shots.weak]):
        rows = np.flatnonzero((shots.picture == picture) & shots.weak)
        features = shots.features[picture : picture + 1]
        planes = np.concatenate([shots.foreground[rows], shots.background[rows]])
        prototypes = ops.weighted_pool(features, planes[None], EPS, threads=threads)[0]
        cosines: NDArray[np.float32] = ops.cosine_match(features, prototypes, 1.0, threads=threads)
        shown, scene = np.split(cosines[0], 2)
        found = shots.possible[rows] * (shown > scene)
        for row, own in zip(rows, found, strict=True):
            if (own * (foreground[row] > 0)).sum() > 0:
                foreground[row] = own
    return replace(shots, foreground=foreground, weak=np.zeros_like(shots.weak))
