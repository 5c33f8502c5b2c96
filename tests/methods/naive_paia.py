"""PAIA once more, cell by cell in double precision: what the runtime's method is compared with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fsseg_sdk.methods.paia_settings import PaiaSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """One step. kept: [B, N, cells], y z tau w of each cell for each class; mass: [B, N];
    gamma: [N]. closest: how near any indicator is to its jump."""

    kept: Array
    mass: Array
    gamma: Array
    closest: float


def unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def statistics(distances: Array, weights: Array) -> Array:
    """[5] of one class's distances: min, max, variance, skewness, kurtosis."""
    some = distances[weights > 0]
    share = weights[weights > 0] / weights.sum()
    centred = some - share @ some
    variance = share @ centred**2
    if variance < 1e-12:
        return np.array([some.min(), some.max(), 0.0, 0.0, 0.0])
    skewness, kurtosis = (share @ centred**p / variance ** (p / 2) for p in (3, 4))
    return np.array([some.min(), some.max(), variance, skewness, kurtosis])


def gamma_of(distances: Array, weights: Array, settings: PaiaSettings) -> tuple[float, float]:
    """(gamma, mean) of one class."""
    mean = float((weights * distances).sum() / weights.sum())
    if settings.threshold is None:
        return settings.radius, mean
    given = np.zeros(5) if mean < 1e-6 else statistics(distances / mean, weights)
    net = settings.threshold
    hidden = np.tanh(np.array(net.hidden_weight) @ given + net.hidden_bias)
    return float(hidden @ np.array(net.output_weight) + net.output_bias), mean


def step(
    cells: Array, weights: Array, ways: list[int], prototypes: Array, parts: int, s: PaiaSettings
) -> Step:
    """cells: [B, cells, C]; weights: [B, cells]; ways: -1 for any class."""
    cosine = unit(cells) @ unit(prototypes).T
    scene = cosine[..., :parts].max(-1, keepdims=True)
    scores = s.panet.scale * np.concatenate([scene, cosine[..., parts:]], -1)
    sure = np.exp(scores - scores.max(-1, keepdims=True))
    sure /= sure.sum(-1, keepdims=True)
    ranked = np.sort(scores, -1)
    closest = float((ranked[..., -1] - ranked[..., -2]).min()) / s.panet.scale
    n_ways = len(prototypes) - parts
    kept = np.zeros((len(cells), n_ways, cells.shape[1]))
    gammas = []
    for c in range(n_ways):
        distance = 1 - cosine[..., parts + c]
        gamma, mean = gamma_of(distance, weights, s)
        gammas.append(gamma)
        relative = distance / mean if mean >= 1e-6 else np.zeros_like(distance)
        if mean >= 1e-6 and statistics(distance, weights)[2] == 0:
            relative = np.ones_like(distance)  # constant, but for rounding
        for picture, way in enumerate(ways):
            if way in (-1, c):
                mine = scores[picture].argmax(-1) == 1 + c
                if s.distilled:
                    closest = min(closest, float(np.abs(relative[picture] - gamma).min()))
                    mine &= relative[picture] < gamma
                kept[picture, c] = sure[picture, :, 1 + c] * mine * weights[picture]
    return Step(kept, kept.sum(-1), np.array(gammas), closest)


def fuse(
    features: NDArray[np.float32],
    weights: NDArray[np.float32] | None,
    ways: list[int],
    prototypes: Array,
    counts: Array,
    parts: int,
    steps: int,
    settings: PaiaSettings,
) -> tuple[Array, Array, list[Step]]:
    """(prototypes, counts, steps) after `steps`. prototypes: [P + N, C], counts: [N] of the
    support; the classes' sums are their products."""
    cells = features.astype(np.float64).reshape(*features.shape[:2], -1).transpose(0, 2, 1)
    mass = (
        np.ones(cells.shape[:2]) if weights is None else np.float64(weights).reshape(len(cells), -1)
    )
    sums, found, now, total = prototypes[parts:] * counts[:, None], [], prototypes, counts
    for _ in range(steps):
        found.append(step(cells, mass, ways, now, parts, settings))
        now, total = prototypes.copy(), counts.copy()
        now[parts:] = sums
        for c in range(len(counts)):
            for picture in np.flatnonzero(found[-1].mass[:, c] > 0):
                now[parts + c] += (
                    found[-1].kept[picture, c] @ cells[picture] / found[-1].mass[picture, c]
                )
                total[c] += 1
        now[parts:] /= total[:, None]
    return now, total, found
