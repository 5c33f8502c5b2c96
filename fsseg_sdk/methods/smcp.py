"""SMCP (paper: "SMCP", sections III-D and III-G): a trained head that meets features and one
prototype; the query's own prototype joins the support's for a second pass.

The head sees every cell's features beside the same prototype, so that one head serves any class.
Its first convolution is linear in both: the query's share is computed once a query, the
prototype's once a task, at its nine taps instead of at every cell, and both passes and all classes
use the same ones. The graphs of a bundle:

- "smcp_query": features [B, C, h, w] -> query [B, W, h, w], with the bias
- "smcp_prototype": prototypes [N, C] -> shares [N, W, 9]
- "smcp_head": query [1, W, h, w], shares [N, W, 9] -> logits [N, 2, h, w], background first

With N classes the head runs on each, as a batch, and a cell's score of a class is how far its
foreground logit is above its background logit. What is found in the first pass is decided on a
picture of `pixels_per_cell` pixels a cell and pooled by grid weights, which is pooling upsampled
features (eq. 6). Where a class was not found its answer is that of the first pass.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Match, NamedGraph, Shots, State
from .extents import extents_of
from .graphs import run
from .panet import OnPanet, Panet, PanetFitted
from .parts import EPS
from .smcp_settings import SmcpSettings

__all__ = ["Smcp", "SmcpFitted"]

_PANET = Panet()
_QUERY, _PROTOTYPE, _HEAD = "smcp_query", "smcp_prototype", "smcp_head"
_TAPS = 9
_AT_A_TIME = 8
"""Classes in one run of the head: enough to gain what a batch gains, and 254 do not fill memory."""
_Array = NDArray[np.float32]


@dataclass(frozen=True)
class SmcpFitted(OnPanet):
    """prototypes: [N, C], the support's. counts: [N] labelled pictures of each. shares: [N, W, 9],
    what the prototypes give to the head's first convolution."""

    rough: PanetFitted
    prototypes: _Array
    counts: _Array
    shares: _Array
    graphs: Mapping[str, NamedGraph]
    settings: SmcpSettings
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "sigmoid"

    def match(
        self,
        features: _Array,
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        grid = (features.shape[2], features.shape[3])
        logits: _Array = np.zeros((len(features), 1 + self.n_ways, *grid), np.float32)
        for index, extent in enumerate(extents_of(extents, features)):
            logits[index, 1:] = self._query(features[index : index + 1], extent, threads)
        return Match(logits, evidence=self.rough.match(features, threads=threads).logits)

    def _query(self, features: _Array, extent: tuple[float, float], threads: int | None) -> _Array:
        """[N, h, w]: foreground above background, of one query [1, C, h, w]."""
        own = self.settings
        width = self.shares.shape[1]
        expected = (1, width, *features.shape[2:])
        query = run(self.graphs, _QUERY, {"features": features}, "query", expected)
        logits = self._head(query, self.shares)
        if own.passes == 2 and own.guide != "support":
            found = self.found(logits, extent, threads)
            ways = np.flatnonzero(found.any(axis=(1, 2)))
            if len(ways):
                pseudo = ops.weighted_pool(features, found[None, ways], EPS, threads=threads)[0]
                guides = self._guides(ways, pseudo)
                logits[ways] = self._head(query, prototype_shares(guides, self.graphs, width))
        scores: _Array = logits[:, 1] - logits[:, 0]
        return scores

    def found(self, logits: _Array, extent: tuple[float, float], threads: int | None) -> _Array:
        """[N, h, w] grid weights, in cells, of what the head's `logits` [N, 2, h, w] call
        foreground; an empty plane where that is nothing."""
        grid = (logits.shape[2], logits.shape[3])
        size = tuple(max(1, round(cells * self.settings.pixels_per_cell)) for cells in extent)
        masks = ops.upsample_argmax(logits, (size[0], size[1]), extent, threads=threads)
        weights = ops.grid_weights(masks, grid, extent, threads=threads)
        return weights * np.float32(extent[0] * extent[1] / (size[0] * size[1]))

    def _guides(self, ways: NDArray[np.intp], pseudo: _Array) -> _Array:
        """[n, C]: what guides the second pass of these ways, whose own prototypes are `pseudo`."""
        if self.settings.guide == "pseudo":
            return pseudo
        counts = self.counts[ways, None] if self.settings.fusion == "shots" else np.float32(1)
        fused: _Array = (self.prototypes[ways] * counts + pseudo) / (counts + 1)
        return fused

    def _head(self, query: _Array, shares: _Array) -> _Array:
        """[n, 2, h, w] of shares [n, W, 9]."""
        logits = np.empty((len(shares), 2, *query.shape[2:]), np.float32)
        for first in range(0, len(shares), _AT_A_TIME):
            feeds = {"query": query, "shares": shares[first : first + _AT_A_TIME]}
            expected = (len(feeds["shares"]), *logits.shape[1:])
            logits[first : first + _AT_A_TIME] = run(self.graphs, _HEAD, feeds, "logits", expected)
        return logits


def prototype_shares(
    prototypes: _Array, graphs: Mapping[str, NamedGraph], width: int = -1
) -> _Array:
    """[n, W, 9] of prototypes [n, C]. width: W, if that is known."""
    expected = (len(prototypes), width, _TAPS)
    return run(graphs, _PROTOTYPE, {"prototypes": prototypes}, "shares", expected)


class Smcp:
    """The method. Its state is PANet's; the head is three graphs of the bundle."""

    name = "smcp"
    properties = frozenset({"deterministic", "self_segmenting"})
    graphs: tuple[str, ...] = (_QUERY, _PROTOTYPE, _HEAD)
    settings_type: type[Any] = SmcpSettings

    def summarise(
        self,
        shots: Shots,
        settings: SmcpSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        return _PANET.summarise(shots, settings.panet, graphs, threads=threads)

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        _PANET.check(state, channels, grid)

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"panet": _PANET.settings_from(method, settings)}

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: SmcpSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> SmcpFitted:
        rough = _PANET.fit(state, n_ways, settings.panet, graphs)
        prototypes = np.ascontiguousarray(rough.prototypes[rough.parts :])
        return SmcpFitted(
            rough=rough,
            prototypes=prototypes,
            counts=np.bincount(state.way, minlength=n_ways).astype(np.float32),
            shares=prototype_shares(prototypes, graphs),
            graphs=graphs,
            settings=settings,
        )
