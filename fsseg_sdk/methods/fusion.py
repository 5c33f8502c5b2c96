"""The fusion of prototypes, as a call and step by step: what was kept of each picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..ops.fusion import SMALLEST_MEAN
from .base import State
from .paia_settings import PaiaSettings

__all__ = ["Pictures", "Start", "kept_cells"]


@dataclass(frozen=True)
class Pictures:
    """Pictures that give to prototypes. features: [B, C, h, w] float32; ways: [B] int64, the class
    that each shows, -1: any; weights: [B, h, w] float32, 0 beside the picture; None: 1."""

    features: NDArray[np.float32]
    ways: NDArray[np.int64]
    weights: NDArray[np.float32] | None

    @classmethod
    def of(cls, auxiliary: State) -> Pictures:
        """From the rows that the method keeps."""
        arrays = auxiliary.arrays
        return cls(arrays["features"], auxiliary.way, arrays["coverage"])


@dataclass(frozen=True)
class Start:
    """What a fusion starts from. background: [P, C]; sums: [N, C], of pooled vectors, and
    counts: [N], how many, of each class."""

    background: NDArray[np.float32]
    sums: NDArray[np.float32]
    counts: NDArray[np.float32]

    def fuse(
        self, pictures: Pictures, settings: PaiaSettings, steps: int, threads: int | None
    ) -> ops.Fusion:
        """After `steps` steps with these pictures."""
        network = settings.threshold
        return ops.prototype_fusion(
            pictures.features,
            pictures.ways,
            self.background,
            self.sums,
            self.counts,
            steps=steps,
            scale=settings.panet.scale,
            distilled=settings.distilled,
            threshold=None
            if network is None
            else ops.ThresholdMlp(
                np.array(network.hidden_weight, np.float32),
                np.array(network.hidden_bias, np.float32),
                np.array(network.output_weight, np.float32),
                network.output_bias,
            ),
            radius=settings.radius,
            weights=pictures.weights,
            threads=threads,
        )


def kept_cells(
    start: Start, pictures: Pictures, settings: PaiaSettings, threads: int | None
) -> NDArray[np.float32]:
    """[steps, B, h, w] in 0..1: how much each cell of each picture gives to its class in each step,
    probability times indicators times coverage (eq. 5). Every picture's class is known."""
    features, parts = pictures.features, len(start.background)
    grid = features.shape[2:]
    weights = np.float32(1) if pictures.weights is None else pictures.weights
    thresholds = start.fuse(pictures, settings, settings.steps, threads).thresholds
    kept = np.empty((settings.steps, len(features), *grid), np.float32)
    own, at = (np.arange(len(features)), pictures.ways), pictures.ways[:, None, None]
    for step in range(settings.steps):
        prototypes = start.fuse(pictures, settings, step, threads).prototypes
        cosines = ops.cosine_match(features, prototypes, 1.0, threads=threads)
        shown = cosines[:, parts:]
        scene = cosines[:, :parts].max(axis=1, keepdims=True)
        scores = np.concatenate([scene, shown], axis=1) * np.float32(settings.panet.scale)
        wins = scores.argmax(axis=1) == 1 + at
        exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
        sure = (exponentials[:, 1:] / exponentials.sum(axis=1, keepdims=True))[own]
        kept[step] = sure * wins * weights
        if settings.distilled:
            stats = ops.distance_stats(
                features, prototypes[parts:], pictures.weights, threads=threads
            )
            relative = (1 - shown[own]) / np.maximum(stats[:, 5], SMALLEST_MEAN)[at]
            relative[stats[pictures.ways, 2] == 0] = 1  # constant, but for rounding
            relative[stats[pictures.ways, 5] < SMALLEST_MEAN] = 0
            kept[step] *= relative < thresholds[step][at]
    return kept
