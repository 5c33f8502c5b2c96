"""What a query's match gives, before it becomes a Result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .preprocess import Geometry

__all__ = ["ScoreMap", "covered"]


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """A query's scores on a grid: logits [P, h, w] float32, and how that grid lies over the
    picture. evidence: [N+1, h, w], of presence. timings: milliseconds by stage. labels: [1, H, W]
    uint8 on the device where the query was matched; None: still to be made, on the host. places:
    the device where preprocess, encoder, match and label run, and as "replayed" those of them that
    were a recorded CUDA graph."""

    logits: NDArray[np.float32]
    evidence: NDArray[np.float32]
    geometry: Geometry
    warnings: tuple[str, ...]
    timings: dict[str, float]
    labels: Any = None
    places: Mapping[str, str] = field(default_factory=dict)

    @property
    def extent(self) -> tuple[float, float]:
        """Cells that the picture covers, from the top left."""
        return self.geometry.extent((self.logits.shape[1], self.logits.shape[2]))


def covered(logits: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """The cells of logits [N+1, h, w] that show any of the picture."""
    rows, columns = geometry.extent((logits.shape[1], logits.shape[2]))
    return logits[:, : math.ceil(rows), : math.ceil(columns)]
