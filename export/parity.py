"""Does a graph compute what it should? `export` refuses to write a bundle that does not.

A float32 graph is compared with torch, number by number; a lower precision with the float32 graph,
by the error as a whole and by labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.half import simulated
from export.plain import session_of
from fsseg_sdk import Segmenter
from fsseg_sdk.backends import Graph, GraphSpec, TensorInfo
from training.scenes import draw_pair

RELATIVE, ABSOLUTE = 1e-3, 1e-4  # encoder features in float32, as timm compares its exports
EPISODES, SIDE = 4, 96  # of drawn scenes, whose labels are compared


@dataclass(frozen=True)
class Parity:
    """The largest difference, and the largest share of its tolerance that an element used up.

    A share above 1 is refused.
    """

    max_abs: float
    worst: float

    @property
    def ok(self) -> bool:
        return bool(self.worst <= 1.0)  # NaN is not


def compare(expected: NDArray[np.float32], got: NDArray[np.float32], scale: float = 1.0) -> Parity:
    """Elementwise ``|got - expected| <= ABSOLUTE * scale + RELATIVE * |expected|``; shapes must
    agree."""
    if expected.shape != got.shape:
        return Parity(float("inf"), float("inf"))
    difference = np.abs(got.astype(np.float64) - expected)
    return Parity(
        float(difference.max()),
        float((difference / (ABSOLUTE * scale + RELATIVE * np.abs(expected))).max()),
    )


def check_graph(encoder: nn.Module, graph: Graph, images: NDArray[np.float32]) -> Parity:
    """Run both on ``images [B, 3, H, W]``, whole and one by one; return the worst comparison."""
    with torch.no_grad():
        expected = encoder(torch.from_numpy(images)).float().numpy()
    results = [compare(expected, graph.run({"image": images})["features"])]
    for index in range(len(images)):
        one = graph.run({"image": images[index : index + 1]})["features"]
        results.append(compare(expected[index : index + 1], one))
    return worst_of(results)


def worst_of(results: Sequence[Parity]) -> Parity:
    """The one that is farthest from agreement; NaN is."""
    return max(results, key=lambda parity: np.inf if np.isnan(parity.worst) else parity.worst)


@dataclass(frozen=True)
class Limits:
    """What a precision may cost. features: the error's root mean square over that of the features.
    margin: where float32's logits of two classes are this close, either label is right (None: not
    asked)."""

    features: float
    margin: float | None


LIMITS: Mapping[str, Limits] = {
    "fp16": Limits(0.01, 0.1),  # 11 bits of a number instead of 24
    "bf16": Limits(0.08, 0.8),  # three bits fewer than fp16: eight times its error
    # Coarse; what counts is the mean-IoU that is lost, which is limited by itself.
    "int8": Limits(0.35, None),
}


@dataclass(frozen=True)
class Agreement:
    """What was found, and what was allowed."""

    features: float
    margin: float
    limits: Limits

    @property
    def ok(self) -> bool:
        """NaN is not."""
        margin = self.limits.margin is None or self.margin <= self.limits.margin
        return bool(self.features <= self.limits.features and margin)

    def __str__(self) -> str:
        text = f"error of the features {self.features:.2%} (at most {self.limits.features:.0%})"
        if self.limits.margin is not None:
            text += f", labels differ where logits are {self.margin:.3f} apart or less (at most "
            text += f"{self.limits.margin:g})"
        return text


class AsWritten:
    """A graph computed as its file says, on any CPU: node by node, of fp16 and bf16 with every
    result rounded."""

    backend, device = "simulated", "cpu"

    def __init__(self, data: bytes, spec: GraphSpec, precision: str) -> None:
        self.inputs: tuple[TensorInfo, ...] = spec.inputs
        self.outputs: tuple[TensorInfo, ...] = spec.outputs
        self.precision = precision
        exact = data if precision == "int8" else simulated(data).SerializeToString()
        self._session = session_of(exact, optimise=False)

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
    errors, whole = 0.0, 0.0
    for feed in feeds:
        expected, found = (g["encoder"].run(feed)["features"] for g in (exact, lower))
        errors += float(np.square(found.astype(np.float64) - expected).sum())
        whole += float(np.square(expected, dtype=np.float64).sum())
    root = float(np.sqrt(errors / max(whole, 1e-30)))
    margin = compare_labels(*(Segmenter(dict(g), manifest, threads=1) for g in (exact, lower)))
    return Agreement(root, margin, LIMITS[precision])


def compare_labels(exact: Segmenter, lower: Segmenter) -> float:
    """Of what the two find on drawn episodes: the largest distance of float32's two logits at a
    pixel where they differ."""
    margin = 0.0
    for seed in range(EPISODES):
        (shown, families), (query, _) = draw_pair(np.random.default_rng(seed), SIDE)
        first, second = (s.segment(shown, families == 1, query) for s in (exact, lower))
        differ = (first.raw_labels > 0) != (second.raw_labels > 0)
        if differ.any():
            logits = replace(first, activation="none").scores
            apart = np.abs(logits[1] - logits[0])[differ].max()
            margin = float(np.maximum(margin, apart))  # NaN stays NaN
    return margin
