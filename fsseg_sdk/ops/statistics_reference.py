"""Cosines, and the statistics of distances, in numpy and double precision (see reference.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Distances with a smaller standard deviation count as constant: it is rounding, not shape.
CONSTANT_DEVIATION = 1e-6


def cosines(features: NDArray[np.float32], prototypes: NDArray[Any]) -> Array:
    """``[B, C, h, w], [P, C] or [B, P, C] -> [B, P, h*w]``; the cosine of anything with 0 is 0."""
    f, p = flat(features), np.asarray(prototypes, np.float64)
    dots = np.broadcast_to(unit(p, -1), (f.shape[0], *p.shape[-2:])) @ unit(f, 1)
    return np.asarray(dots)


def distance_stats(
    features: NDArray[np.float32],
    prototypes: NDArray[Any],
    weights: NDArray[np.float32] | None = None,
) -> Array:
    """``[B, C, h, w], [N, C], [B, h, w] -> [N, 6]``: min, max, variance, skewness, kurtosis, mean.

    Of 1 - cosine over all B*h*w pixels, each counting as much as its weight; variance of the
    population, kurtosis not in excess (3 for a normal distribution). Variance, skewness and
    kurtosis of constant distances are 0; so is everything where nothing has a weight.
    """
    distances = 1.0 - cosines(features, prototypes).transpose(1, 0, 2).reshape(len(prototypes), -1)
    share = np.ones(distances.shape[1])
    if weights is not None:
        share = weights.reshape(-1).astype(np.float64)
    distances, share = distances[:, share > 0.0], share[share > 0.0]
    if share.size == 0:
        return np.zeros((len(prototypes), 6))
    share = share / share.sum()
    mean = distances @ share
    centred = distances - mean[:, None]
    variance = centred**2 @ share
    constant = variance < CONSTANT_DEVIATION**2
    safe = np.where(constant, 1.0, variance)
    moments = np.stack([variance, centred**3 @ share / safe**1.5, centred**4 @ share / safe**2])
    moments[:, constant] = 0.0
    return np.stack([distances.min(axis=1), distances.max(axis=1), *moments, mean], axis=1)


def flat(planes: NDArray[np.float32]) -> Array:
    """``[B, C, h, w] -> [B, C, h*w]``."""
    batch, channels, height, width = planes.shape
    return planes.reshape(batch, channels, height * width).astype(np.float64)


def unit(vectors: Array, axis: int) -> Array:
    """Length 1 along ``axis``; zero stays zero."""
    norm = np.sqrt((vectors * vectors).sum(axis=axis, keepdims=True))
    return np.asarray(vectors / np.where(norm > 0.0, norm, 1.0))
