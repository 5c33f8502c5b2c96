"""Siamese: nearest neighbour in an embedding that was trained to tell whether two cells show the
same class (a baseline of OSLSM, section 6, after Koch et al.).

The embedding is a graph of the bundle, "siamese_embedding": features [B, C, h, w] -> embedding
[B, D, h, w]. All else is `nearest`, on embeddings. The paper keeps 0.3 of the support's cells at
five shots, for memory; here that is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Match, NamedGraph, State
from .graphs import run
from .nearest import NearestSettings, Neighbours, neighbours
from .on_cells import OnCells
from .panet import OnPanet, Panet, PanetFitted
from .settings import check_range

__all__ = ["Siamese", "SiameseFitted", "SiameseSettings"]

_PANET = Panet()
_EMBEDDING = "siamese_embedding"
_FIVE = 5


@dataclass(frozen=True)
class SiameseSettings(NearestSettings):
    """As of `nearest`. share_of_five: of the labelled cells that is kept where every class has five
    shots or more, in place of `share`."""

    share_of_five: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("share_of_five", self.share_of_five, 1e-3, 1.0)


@dataclass(frozen=True)
class SiameseFitted(OnPanet):
    """known: the labelled cells, as embeddings."""

    rough: PanetFitted
    known: Neighbours
    graphs: Mapping[str, NamedGraph]
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
        embedded = _embed(features, self.graphs, self.known.channels)
        return Match(self.known.logits(embedded, threads), evidence=rough)


class Siamese(OnCells):
    """The method; its cells are embedded."""

    name = "siamese"
    properties = frozenset({"deterministic", "self_segmenting"})
    graphs: tuple[str, ...] = (_EMBEDDING,)
    settings_type: type[Any] = SiameseSettings

    def encoded(
        self, features: NDArray[np.float32], graphs: Mapping[str, NamedGraph]
    ) -> NDArray[np.float32]:
        return _embed(features, graphs)

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: SiameseSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> SiameseFitted:
        _check_width(state.arrays["cells"].shape[1], graphs[_EMBEDDING])
        rough = _PANET.fit(state, n_ways, settings.panet, graphs)
        many = np.bincount(state.way, minlength=n_ways).min() >= _FIVE
        share = settings.share_of_five if many else settings.share
        return SiameseFitted(rough, neighbours(state, n_ways, settings, share), graphs)


def _check_width(width: int, graph: NamedGraph) -> None:
    """InputError if the graph says that it gives another number of channels; some do not say."""
    for info in getattr(graph, "outputs", ()):
        if info.name == "embedding" and info.shape[1] not in (-1, width):
            raise InputError(
                "state array 'cells'",
                expected=f"{info.shape[1]} numbers a cell, as the bundle's embedding gives",
                got=f"{width}",
                remedy="The state was made with another embedding; prepare it again.",
            )


def _embed(
    features: NDArray[np.float32], graphs: Mapping[str, NamedGraph], width: int = -1
) -> NDArray[np.float32]:
    """[B, D, h, w]. width: D, if that is known."""
    expected = (len(features), width, *features.shape[2:])
    return run(graphs, _EMBEDDING, {"features": features}, "embedding", expected)
