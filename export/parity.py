"""Torch against a runtime: `export` refuses to write a bundle whose graph disagrees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fsseg_sdk.backends import Graph

RELATIVE, ABSOLUTE = 1e-3, 1e-4  # encoder features in float32, as timm compares its exports


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
