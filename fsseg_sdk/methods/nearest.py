"""Nearest neighbour: a cell of the query gets the class of the labelled cell most like it.

The baseline "1-NN" of OSLSM (Shaban et al., BMVC 2017, section 6), by the cosine. Every labelled
cell of every shot takes part; the largest cosine to each class is found in one pass, and the pairs
of cells are never in memory at once. The cosines, times `scale`, are the logits of a softmax.
Whether a class is there at all is judged by PANet's match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Match, NamedGraph, State
from .on_cells import OnCells
from .panet import OnPanet, Panet, PanetFitted, PanetSettings
from .rows import labelled_rows
from .settings import check_range

__all__ = ["Nearest", "NearestFitted", "NearestSettings", "neighbours"]

_PANET = Panet()
_Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class NearestSettings:
    """panet: of the match that presence is judged by. scale: factor on the cosine. precision: of
    the cosines, float32, or bfloat16 summed in float32. share: of the labelled cells of each class
    that is kept, chosen by `seed`."""

    panet: PanetSettings = field(default_factory=PanetSettings)
    scale: float = 20.0
    precision: _Precision = "fp32"
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 0.1, 1000.0)
        check_range("share", self.share, 1e-3, 1.0)
        check_range("seed", self.seed, 0, (1 << 32) - 1)


@dataclass(frozen=True)
class Neighbours:
    """ready: the labelled cells, by label. count, channels: how many, and of how many numbers."""

    ready: ops.NearestRows
    count: int
    channels: int
    scale: float

    def logits(self, features: NDArray[np.float32], threads: int | None) -> NDArray[np.float32]:
        """[B, N+1, h, w] of [B, channels, h, w]."""
        found = self.ready.match(features, threads=threads)
        found *= np.float32(self.scale)
        return found


@dataclass(frozen=True)
class NearestFitted(OnPanet):
    """known: the labelled cells."""

    rough: PanetFitted
    known: Neighbours
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        rough = self.rough.match(features, threads=threads).logits
        return Match(self.known.logits(features, threads), evidence=rough)


def neighbours(state: State, n_ways: int, settings: NearestSettings, share: float) -> Neighbours:
    """Of a state of `OnCells`. share: of the labelled cells."""
    rows, group = labelled_rows(state, n_ways).grouped(share, settings.seed)
    ready = ops.NearestRows(rows, group, n_ways + 1, precision=settings.precision)
    return Neighbours(ready, len(rows), rows.shape[1], settings.scale)


class Nearest(OnCells):
    """The method."""

    name = "nearest"
    properties = frozenset({"pointwise", "deterministic", "self_segmenting"})
    settings_type: type[Any] = NearestSettings

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: NearestSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> NearestFitted:
        rough = _PANET.fit(state, n_ways, settings.panet, graphs)
        return NearestFitted(rough, neighbours(state, n_ways, settings, settings.share))
