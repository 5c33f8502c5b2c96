"""PAIA: pictures of which only the class is known sharpen the prototypes (the paper's eq. 1 to 5).

The prototypes are PANet's (eq. 1). In an auxiliary picture of a class they find cells; the mean of
those cells, weighted by how sure the match is (eq. 2), joins the mean over the labelled pictures
(eq. 3). Of the cells only those count that are nearer to the prototype than a threshold (eq. 4
and 5). With the fused prototypes the same begins again, for a few steps (section 3.5).

The paper compares a threshold of normalised distances with plain ones, and does not say how they
are normalised. Here a class's distances ``d = 1 - cosine`` are divided by their mean over all
pictures of that fusion, both for the network's statistics and for the comparison.

The paper also takes the query for an auxiliary picture. Here that comes last, if `query_steps` asks
for it: `fit` fuses the auxiliary pictures once, and every query then continues from there with its
own cells alone, so that it costs passes over itself and none over other pictures. The background
stays as it is. Whether a class is there at all is judged by the match before: a query without the
class must not vote for itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .base import Match, NamedGraph, Shots, State, check_state
from .extents import coverage, extents_of
from .facts import support_facts
from .fusion import Pictures, Start, kept_cells
from .paia_settings import PaiaSettings
from .panet import OnPanet, Panet, PanetFitted

__all__ = ["Paia", "PaiaFitted"]

_PANET = Panet()
_EVERY_WAY = np.full(1, -1, np.int64)


@dataclass(frozen=True)
class PaiaFitted(OnPanet):
    """rough: the match by the prototypes that the auxiliary pictures have joined. start: of the
    fusion with a query."""

    rough: PanetFitted
    start: Start
    settings: PaiaSettings
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        before = self.rough.match(features, threads=threads)
        if not self.settings.query_steps:
            return before
        logits = np.empty_like(before.logits)
        grid = (features.shape[2], features.shape[3])
        for index, extent in enumerate(extents_of(extents, features)):
            query = features[index : index + 1]  # it learns from no other query
            weights = None if extent == grid else coverage(extent, grid)[None]
            own = Pictures(query, _EVERY_WAY, weights)
            fusion = self.start.fuse(own, self.settings, self.settings.query_steps, threads)
            sharper = replace(self.rough, prototypes=fusion.prototypes)
            logits[index] = sharper.match(query, threads=threads).logits[0]
        return Match(logits, evidence=before.logits)


class Paia:
    """The method. Its state is PANet's; of an auxiliary picture it holds the "features" [C, h, w]
    and the "coverage" [h, w], the part of each cell that shows any of the picture."""

    name = "paia"
    properties = frozenset({"deterministic", "self_segmenting", "auxiliary"})
    graphs: tuple[str, ...] = ()
    settings_type: type[Any] = PaiaSettings

    def summarise(
        self,
        shots: Shots,
        settings: PaiaSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        return _PANET.summarise(shots, settings.panet, graphs, threads=threads)

    def summarise_auxiliary(
        self,
        features: NDArray[np.float32],
        ways: NDArray[np.int64],
        extents: Sequence[tuple[float, float]] | None,
        settings: PaiaSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        grid = (features.shape[2], features.shape[3])
        covered = [coverage(extent, grid) for extent in extents_of(extents, features)]
        return State(ways, {"features": features, "coverage": np.stack(covered)})

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        _PANET.check(replace(state, auxiliary=None), channels, grid)
        if state.auxiliary is None:
            return
        check_state(state.auxiliary, {"features": (channels, *grid), "coverage": grid})
        covered = state.auxiliary.arrays["coverage"]
        if not ((covered >= 0) & (covered <= 1)).all():
            raise InputError(
                "state array 'coverage'",
                expected="shares in 0..1",
                got=f"{covered.min():g} to {covered.max():g}",
                remedy="The state was not made by this method; prepare it again.",
            )

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        panet = _PANET.settings_from(method, settings)
        return {"panet": {**panet, "background": "pool-of-pixels"}}

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: PaiaSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> PaiaFitted:
        plain = _PANET.fit(state, n_ways, settings.panet, graphs)
        start = _start(state, plain)
        if state.auxiliary is None or not settings.steps:
            return PaiaFitted(plain, start, settings)
        pictures = Pictures.of(state.auxiliary)
        fusion = start.fuse(pictures, settings, settings.steps, threads)
        facts = support_facts(state, n_ways, fusion.prototypes, plain.parts)
        fused = replace(plain, prototypes=fusion.prototypes, facts=facts)
        given = np.bincount(pictures.ways, minlength=n_ways)
        unused = np.flatnonzero((given > 0) & (fusion.counts == start.counts))
        warnings = tuple(
            f"label {way + 1}: nothing of the class was found in its auxiliary pictures "
            f"({given[way]}); they have no say"
            for way in unused
        )
        after = replace(start, sums=fusion.sums, counts=fusion.counts)
        return PaiaFitted(fused, after, settings, warnings)

    def kept(
        self, state: State, n_ways: int, settings: PaiaSettings, *, threads: int | None = None
    ) -> NDArray[np.float32]:
        if state.auxiliary is None:
            return np.empty((settings.steps, 0, 0, 0), np.float32)
        start = _start(state, _PANET.fit(state, n_ways, settings.panet, {}))
        return kept_cells(start, Pictures.of(state.auxiliary), settings, threads)


def _start(state: State, plain: PanetFitted) -> Start:
    shown = state.arrays["foreground"].astype(np.float64)
    ways = [state.way == way for way in range(plain.n_ways)]
    return Start(
        background=plain.prototypes[: plain.parts],
        sums=np.stack([shown[rows].sum(axis=0) for rows in ways]).astype(np.float32),
        counts=np.array([rows.sum() for rows in ways], np.float32),
    )
