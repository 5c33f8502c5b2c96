"""Is the class in this picture at all? A calibrated answer from a handful of numbers per class.

The largest score of a picture says little about presence: it depends on the encoder, on how
uniform the class is and on how much the background looks like it. So a small logistic model
looks at `DESCRIPTORS`, most of them relative to what the support scores under its own
prototypes. All come from the cosine maps that the match has made anyway; no features are read.

The model's coefficients travel in the settings of a bundle (`PresenceModel`) and are fitted by
`python -m training presence` on pictures with and without the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Presence
from .descriptors import DESCRIPTORS, SupportFacts, presence_descriptors
from .settings import check_range

__all__ = ["DESCRIPTORS", "NEUTRAL", "PresenceModel", "SupportFacts", "presence_descriptors"]

_NAMES = tuple(DESCRIPTORS)
_UNCALIBRATED = "presence is not calibrated: this bundle has no coefficients for it"


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
        return self.score_named(descriptors[:, [_NAMES.index(name) for name in self.names]])

    def score_named(self, descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
        """descriptors: [N, len(names)], the model's own; returns [N] in 0..1."""
        factors, constant = self._linear
        activation = np.add.reduce(descriptors * factors, axis=1) + constant
        activation = np.minimum(np.maximum(activation, -50.0), 50.0)
        scores: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-activation))).astype(np.float32)
        return scores

    @cached_property
    def _linear(self) -> tuple[NDArray[np.float64], float]:
        """The same formula as factors [len(names)] and a constant."""
        factors = np.asarray(self.weights, np.float64) / self.scale
        return factors, float(self.bias - factors @ self.mean)


NEUTRAL = PresenceModel(("top_margin",), (0.0,), (0.05,), (1.0,), 0.0, 0.0)
"""Without calibration: 0.5 where the cells most like the class are as near to it as to the
background, 0.73 at a margin of 0.05. Ranks pictures; its value is no probability, so that the
threshold is 0: no class is ruled out."""


def presence_of(
    cosines: NDArray[np.float32],
    facts: SupportFacts,
    model: PresenceModel | None,
    neutral: PresenceModel = NEUTRAL,
) -> Presence:
    """cosines: [N+1, h, w], background first, of the cells that the picture covers. neutral: what
    stands in for a model that there is not."""
    chosen = neutral if model is None else model
    return Presence(
        scores=chosen.score_named(presence_descriptors(cosines, facts, chosen.names)),
        threshold=chosen.threshold,
        calibrated=model is not None,
        warnings=(_UNCALIBRATED,) if model is None else (),
    )
