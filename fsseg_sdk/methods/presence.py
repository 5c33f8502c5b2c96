"""Is the class in this picture at all? A calibrated answer from a handful of numbers per class.

The largest score of a picture says little about presence: it depends on the encoder, on how
uniform the class is and on how much the background looks like it. So a small logistic model
looks at `DESCRIPTORS`, most of them relative to what the support scores under its own
prototypes. All come from the cosine maps that the match has made anyway; no features are read.

The model's coefficients travel in the settings of a bundle (`PresenceModel`) and are fitted by
`python -m training presence` on pictures with and without the class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Presence
from .settings import check_range

__all__ = ["DESCRIPTORS", "NEUTRAL", "PresenceModel", "SupportFacts", "presence_descriptors"]

DESCRIPTORS: Mapping[str, str] = MappingProxyType(
    {
        "top_cosine": "mean cosine to the class over the cells most like it",
        "top_margin": "mean of the largest margins (cosine to the class less the best other)",
        "top_cosine_to_self": "top_cosine minus what the support's own foreground scores",
        "top_margin_to_self": "top_margin over the support's own margin (within -3..3)",
        "won_fraction": "log10 of the share of cells where the class is the best",
        "won_margin": "mean margin over these cells (0 if there are none)",
        "won_cosine_to_self": "mean cosine over these (or the top) cells minus the support's",
        "contrast": "top_cosine in standard deviations above the mean of the map",
        "scene_to_self": "mean background cosine of the other cells minus the support's own",
        "mean_cosine_to_self": "mean cosine to the class over all cells minus the support's",
        "explained_to_self": "mean of the best cosine of each cell minus the support's",
        "prototype_cosine": "cosine between the prototypes of class and background",
        "self_cosine": "mean cosine of the support's own foreground to its prototype",
        "self_margin": "mean margin of the support's own foreground",
        "log_shots": "log2 of the number of shots",
    }
)
_NAMES = tuple(DESCRIPTORS)
_TOP_CELLS = 36
"""The most cells that count as "most like it": 1 % of the map, but not more than an object of a
usual size has when a large picture is stitched from tiles."""
_UNCALIBRATED = "presence is not calibrated: this bundle has no coefficients for it"


@dataclass(frozen=True)
class SupportFacts:
    """What the support scores under the prototypes that it gave; each [N] float32.

    self_cosine, self_margin: its foreground, to the class and over the best other;
    background_cosine: its background to the background; mean_cosine: all of it to the class;
    explained: foreground to the class and background to the background; prototype_cosine: class
    to background; shots: how many.
    """

    self_cosine: NDArray[np.float32]
    self_margin: NDArray[np.float32]
    background_cosine: NDArray[np.float32]
    mean_cosine: NDArray[np.float32]
    explained: NDArray[np.float32]
    prototype_cosine: NDArray[np.float32]
    shots: NDArray[np.float32]


@dataclass(frozen=True)
class PresenceModel:
    """score = sigmoid(bias + sum_i weights[i] * (descriptor[names[i]] - mean[i]) / scale[i])."""

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    threshold: float

    def __post_init__(self) -> None:
        unknown = [name for name in self.names if name not in DESCRIPTORS]
        if unknown or not self.names or len(set(self.names)) != len(self.names):
            raise InputError(
                "presence.names",
                expected=f"different names out of {', '.join(_NAMES)}",
                got=repr(list(self.names)),
                remedy="Fit the coefficients with this version of fsseg_sdk.",
            )
        for field in ("mean", "scale", "weights"):
            values: tuple[float, ...] = getattr(self, field)
            if len(values) != len(self.names):
                raise InputError(
                    f"presence.{field}",
                    expected=f"{len(self.names)} numbers, one per name",
                    got=str(len(values)),
                    remedy="Fit the coefficients again.",
                )
            for value in values:
                check_range(f"presence.{field}", value, 1e-9 if field == "scale" else -1e9, 1e9)
        check_range("presence.bias", self.bias, -1e9, 1e9)
        check_range("presence.threshold", self.threshold, 0.0, 1.0)

    def score(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """descriptors: [N, D] in the order of `DESCRIPTORS`; returns [N] in 0..1."""
        columns = [_NAMES.index(name) for name in self.names]
        standard = (descriptors[:, columns].astype(np.float64) - self.mean) / self.scale
        activation = np.clip(standard @ np.asarray(self.weights) + self.bias, -50.0, 50.0)
        scores: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-activation))).astype(np.float32)
        return scores


NEUTRAL = PresenceModel(("top_margin",), (0.0,), (0.05,), (1.0,), 0.0, 0.0)
"""Without calibration: 0.5 where the cells most like the class are as near to it as to the
background, 0.73 at a margin of 0.05. Ranks pictures; its value is no probability, so that the
threshold is 0: no class is ruled out."""


def presence_of(
    cosines: NDArray[np.float32], facts: SupportFacts, model: PresenceModel | None
) -> Presence:
    """cosines: [N+1, h, w], background first, of the cells that the picture covers."""
    chosen = NEUTRAL if model is None else model
    return Presence(
        scores=chosen.score(presence_descriptors(cosines, facts)),
        threshold=chosen.threshold,
        calibrated=model is not None,
        warnings=(_UNCALIBRATED,) if model is None else (),
    )


def presence_descriptors(cosines: NDArray[np.float32], facts: SupportFacts) -> NDArray[np.float32]:
    """[N, D] float32, D = len(DESCRIPTORS), columns in that order.

    cosines: [N+1, h, w] float32, unscaled, background first; finite.
    """
    flat = cosines.reshape(len(cosines), -1)
    ways, cells = flat.shape[0] - 1, flat.shape[1]
    foreground, background = flat[1:], flat[0]
    margin = _margins(flat)
    top = min(max(cells // 100, 1), _TOP_CELLS)
    top_cosine = _top_mean(foreground, top)
    top_margin = _top_mean(margin, top)
    won = (margin > 0).astype(np.float32)
    won_cells = won.sum(axis=1)
    some = np.maximum(won_cells, 1.0)
    won_cosine = np.einsum("nc,nc->n", won, foreground) / some
    mean = foreground.mean(axis=1)
    spread = np.sqrt(np.maximum(np.einsum("nc,nc->n", foreground, foreground) / cells - mean**2, 0))
    lost_cells = cells - won_cells
    scene = (background.sum() - won @ background) / np.maximum(lost_cells, 1.0)

    columns = np.empty((ways, len(_NAMES)), np.float32)
    columns[:, 0] = top_cosine
    columns[:, 1] = top_margin
    columns[:, 2] = top_cosine - facts.self_cosine
    columns[:, 3] = np.clip(top_margin / np.maximum(facts.self_margin, 0.02), -3.0, 3.0)
    columns[:, 4] = np.log10((won_cells + 0.5) / cells)
    columns[:, 5] = np.einsum("nc,nc->n", won, margin) / some
    columns[:, 6] = np.where(won_cells > 0, won_cosine, top_cosine) - facts.self_cosine
    columns[:, 7] = (top_cosine - mean) / np.maximum(spread, 1e-3)
    columns[:, 8] = np.where(lost_cells > 0, scene - facts.background_cosine, 0.0)
    columns[:, 9] = mean - facts.mean_cosine
    columns[:, 10] = flat.max(axis=0).mean() - facts.explained
    columns[:, 11] = facts.prototype_cosine
    columns[:, 12] = facts.self_cosine
    columns[:, 13] = facts.self_margin
    columns[:, 14] = [math.log2(count) for count in facts.shots]
    return columns


def _margins(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, cells]: the cosine to a class minus the largest to any other, background included."""
    if len(flat) == 2:
        return flat[1:] - flat[:1]
    best_two: NDArray[np.float32] = np.partition(flat, len(flat) - 2, axis=0)[-2:]
    winner = flat.argmax(axis=0)
    is_winner = np.arange(1, len(flat))[:, None] == winner
    margins: NDArray[np.float32] = flat[1:] - np.where(is_winner, best_two[0], best_two[1])
    return margins


def _top_mean(maps: NDArray[np.float32], top: int) -> NDArray[np.float32]:
    chosen = np.partition(maps, maps.shape[1] - top, axis=1)[:, -top:]
    result: NDArray[np.float32] = np.sort(chosen, axis=1).mean(axis=1)
    return result
