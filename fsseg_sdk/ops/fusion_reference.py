"""``soft_pool`` and ``prototype_fusion`` once more, in numpy and double (see reference.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .statistics_reference import cosines, distance_stats, flat

Array = NDArray[np.float64]

SMALLEST_MEAN = 1e-6
"""A mean distance below it is none: all cells equal the prototype."""


def soft_pool(
    features: NDArray[np.float32],
    prototypes: NDArray[Any],
    ways: NDArray[np.int64],
    *,
    parts: int = 1,
    scale: float = 20.0,
    radius: NDArray[Any] | None = None,
    weights: NDArray[np.float32] | None = None,
) -> tuple[Array, Array]:
    """``(vectors [B, N, C], mass [B, N])``."""
    similarity = cosines(features, prototypes)
    scores = class_scores(scale * similarity, parts)
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    classes = np.arange(scores.shape[1] - 1)
    counts = (scores.argmax(axis=1)[:, None] - 1 == classes[:, None]).astype(np.float64)
    if radius is not None:
        counts *= 1.0 - similarity[:, parts:] < np.asarray(radius, np.float64)[:, None]
    counts *= ((ways[:, None] == classes) | (ways[:, None] < 0))[:, :, None]
    if weights is not None:
        counts *= weights.reshape(len(weights), 1, counts.shape[2])
    counts *= shares[:, 1:]
    mass = counts.sum(axis=2)
    total = counts @ flat(features).transpose(0, 2, 1)
    return total / np.where(mass > 0.0, mass, 1.0)[:, :, None], mass


def class_scores(scores: Array, parts: int) -> Array:
    """``[B, parts + N, cells] -> [B, 1 + N, cells]``: of the background's parts the largest."""
    return np.concatenate([scores[:, :parts].max(axis=1, keepdims=True), scores[:, parts:]], axis=1)


def gamma_and_radius(statistics: Array, network: Any | None, radius: float) -> tuple[Array, Array]:
    """``gamma`` and the distance that it stands for, ``[N]`` each, from ``[N, 6]`` statistics."""
    low, high, variance, skewness, kurtosis, mean = statistics.T
    none = mean < SMALLEST_MEAN
    m = np.where(none, 1.0, mean)
    five = np.stack([low / m, high / m, variance / m**2, skewness, kurtosis], axis=1)
    five[none] = 0.0
    gamma = np.full(len(mean), float(radius))
    if network is not None:
        hidden = np.tanh(five @ np.asarray(network[0], np.float64).T + network[1])
        gamma = hidden @ np.asarray(network[2], np.float64) + float(network[3])
    # d / m is 0 in the first case and 1 in the second, in all cells: all of them pass, or none.
    constant = np.where(none, 0.0, 1.0)
    ends = np.where(gamma > constant, np.inf, -np.inf)
    return gamma, np.where(none | (variance <= 0.0), ends, gamma * mean)


def prototype_fusion(
    features: NDArray[np.float32],
    ways: NDArray[np.int64],
    background: NDArray[np.float32],
    sums: NDArray[np.float32],
    counts: NDArray[np.float32],
    *,
    steps: int,
    scale: float = 20.0,
    distilled: bool = True,
    threshold: Any | None = None,
    radius: float = 1.0,
    weights: NDArray[np.float32] | None = None,
) -> tuple[Array, Array, Array, Array, Array]:
    """``(prototypes, sums, counts, mass, thresholds)``."""
    start, support = sums.astype(np.float64), counts.astype(np.float64)
    total, number = start, support
    mass, gammas = np.zeros((steps, len(features), len(sums))), np.zeros((steps, len(sums)))
    for step in range(steps):
        rows = np.concatenate([background.astype(np.float64), divided(total, number)])
        gammas[step], limit = np.inf, None
        if distilled:
            figures = distance_stats(features, rows[len(background) :], weights)
            gammas[step], limit = gamma_and_radius(figures, threshold, radius)
        total, number = start, support
        vectors, mass[step] = soft_pool(
            features, rows, ways, parts=len(background), scale=scale, radius=limit, weights=weights
        )
        total = start + vectors.sum(axis=0)
        number = support + (mass[step] > 0.0).sum(axis=0)
    rows = np.concatenate([background.astype(np.float64), divided(total, number)])
    return rows, total, number, mass, gammas


def divided(sums: Array, counts: Array) -> Array:
    """``sums / counts``; zero where nothing was counted."""
    return np.where(counts[:, None] > 0.0, sums / np.where(counts > 0.0, counts, 1.0)[:, None], 0.0)
