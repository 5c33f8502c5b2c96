"""Does a lower precision still compute what float32 does? `export` refuses what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.precision import simulated
from export.running import session_of
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo
from training.scenes import draw_pair

EPISODES, SIDE = 4, 96


@dataclass(frozen=True)
class Limits:
    """What a precision may cost. features: the error's root mean square over that of the features.
    values: 99.9 % of them are within ``values * (largest + |expected|)``, where largest is 1 or the
    largest feature's size (None: not asked). margin:
    where float32's logits of two classes are this close, either label is right (None: not asked).
    iou: of the labels of drawn episodes, summed, with those that float32 gives; many of their
    pixels are such ties, so it is lower than it would be on photographs."""

    features: float
    values: float | None
    margin: float | None
    iou: float


LIMITS: Mapping[str, Limits] = {
    # 11 bits of a number instead of 24. The largest error of a million values is no stable figure,
    # hence the 99.9 %.
    "fp16": Limits(0.01, 1e-2, 0.1, 0.97),
    # Three bits fewer than fp16: eight times its error.
    "bf16": Limits(0.08, 8e-2, 0.8, 0.85),
    # Coarse; what counts is the mean-IoU that is lost, which is limited by itself.
    "int8": Limits(0.35, None, None, 0.0),
}


@dataclass(frozen=True)
class Agreement:
    """What was found, and what was allowed."""

    features: float
    values: float
    margin: float
    iou: float
    limits: Limits

    @property
    def ok(self) -> bool:
        """NaN is not."""
        right = self.features <= self.limits.features and self.iou >= self.limits.iou
        values = self.limits.values is None or self.values <= 1.0
        margin = self.limits.margin is None or self.margin <= self.limits.margin
        return bool(right and values and margin)

    def __str__(self) -> str:
        text = f"error of the features {self.features:.2%} (at most {self.limits.features:.0%})"
        if self.limits.values is not None:
            text += f", 99.9 % of values within {self.values:.0%} of the limit"
        text += f", labels IoU {self.iou:.4f} on drawn pictures (at least {self.limits.iou:g})"
        if self.limits.margin is not None:
            text += f", differing where logits are {self.margin:.3f} apart (at most "
            text += f"{self.limits.margin:g})"
        return text


class SimulatedGraph:
    """A graph of fp16 or bf16 with every result rounded as its file says, on any CPU."""

    backend, device = "simulated", "cpu"

    def __init__(self, data: bytes, spec: GraphSpec, precision: str) -> None:
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs
        self.precision = precision
        self._session = session_of(simulated(data).SerializeToString(), optimise=False)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [info.name for info in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def compare_precision(
    precision: str,
    exact: Mapping[str, Graph],
    lower: Mapping[str, Graph],
    manifest: Mapping[str, Any],
    feeds: Sequence[Mapping[str, NDArray[Any]]],
) -> Agreement:
    """exact, lower: all graphs of a bundle. feeds: for the encoder."""
    limits = LIMITS[precision]
    errors, whole, worst = 0.0, 0.0, []
    for feed in feeds:
        expected, found = (g["encoder"].run(feed)["features"] for g in (exact, lower))
        difference = found.astype(np.float64) - expected
        errors += float(np.square(difference).sum())
        whole += float(np.square(expected, dtype=np.float64).sum())
        if limits.values is not None:
            largest = max(1.0, float(np.abs(expected).max()))  # of whose sums small values are left
            allowed = limits.values * (largest + np.abs(expected))
            worst.append(float(np.quantile(np.abs(difference) / allowed, 0.999)))
    margin, iou = compare_labels(*(Segmenter(dict(g), manifest, threads=1) for g in (exact, lower)))
    root = float(np.sqrt(errors / max(whole, 1e-30)))
    return Agreement(root, float(np.max(worst)) if worst else 0.0, margin, iou, limits)


def compare_labels(exact: Segmenter, lower: Segmenter) -> tuple[float, float]:
    """Of what the two find on drawn episodes: the largest distance of float32's two logits at a
    pixel where they differ, and the IoU, summed over the episodes."""
    both = either = 0
    margin = 0.0
    for seed in range(EPISODES):
        (shown, families), (query, _) = draw_pair(np.random.default_rng(seed), SIDE)
        first, second = (s.segment(shown, families == 1, query) for s in (exact, lower))
        here, there = first.raw_labels > 0, second.raw_labels > 0
        both += int((here & there).sum())
        either += int((here | there).sum())
        if (here != there).any():
            logits = replace(first, activation="none").scores
            apart = np.abs(logits[1] - logits[0])[here != there]
            margin = max(margin, float(apart.max()))
    return margin, both / either if either else 1.0
