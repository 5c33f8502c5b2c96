"""SROFB (Mei et al., "Activating the Discriminability of Novel Classes for Few-shot
Segmentation"): a classifier of cells that learns from the support and from the query itself.

PANet's match comes first. Where its softmax (eq. 8) is sure, cells of the query become training
samples beside the labelled cells of the support, and a small network with one hidden layer is
trained on both for a few steps. It then scores every cell of the query. With N ways there is one
network with N + 1 outputs.

The paper leaves open the softmax's temperature, the width, class balance, the scale of features,
the start, and what happens without a sure cell; all of these are settings here. The output layer
starts at zero, so that no class is favoured and their order does not matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Match, NamedGraph, Shots, State
from .cells import CELLS, Samples, balanced, check_cells, labelled_cells, spread
from .extents import coverage, extents_of
from .panet import OnPanet, Panet, PanetFitted
from .srofb_settings import BUDGET, SrofbFastSettings, SrofbSettings
from .weak import refine_weak

__all__ = ["Srofb", "SrofbFitted"]

_PANET = Panet()
_NAMES = ("srofb", "srofb-fast")
_NO_CELL = "no cell is surely of a class: this is the match before refinement"
_NOT_LEARNED = "the classifier did not learn on this picture: this is the match before refinement"


@dataclass(frozen=True)
class SrofbFitted(OnPanet):
    """support: labelled cells, whose weights are in cells. start: the network that a query starts
    from."""

    rough: PanetFitted
    support: Samples
    start: ops.Mlp
    steps: int
    settings: SrofbSettings
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    resident: ops.Resident = field(default_factory=ops.Resident, repr=False, compare=False)

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        rough = self.rough.match(features, threads=threads).logits
        logits, shown = ops.duplicate(rough), ops.seen(rough)
        warnings: list[tuple[str, ...]] = []
        for index, extent in enumerate(extents_of(extents, features)):
            sure = self.sure_cells(shown[index], extent)
            one = slice(index, index + 1)
            warnings.append(self._refine(features[one], sure, logits[one], threads))
        return Match(logits, tuple(warnings), evidence=rough)

    def sure_cells(
        self, rough: NDArray[np.float32], extent: tuple[float, float]
    ) -> NDArray[np.bool_]:
        """[N+1, h, w], background first: the cells of a query that it learns from, by the match
        `rough` [N+1, h, w]. None of a class: an empty plane."""
        own = self.settings
        scores = rough * np.float32(own.temperature / self.rough.scale)
        scores -= scores.max(axis=0)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=0)
        covered = coverage(extent, (scores.shape[1], scores.shape[2])) > 0
        sure = np.empty(scores.shape, np.bool_)
        np.greater_equal(scores[0], own.background_threshold, out=sure[0])
        np.greater_equal(scores[1:], own.foreground_threshold, out=sure[1:])
        sure &= covered
        if own.fallback == "top_k":
            for plane, score in zip(sure, np.where(covered, scores, -1), strict=True):
                if not plane.any():
                    likeliest = np.argsort(score, axis=None, kind="stable")[::-1][: own.top_k]
                    plane.ravel()[likeliest] = covered.ravel()[likeliest]
        for plane in sure:
            plane[:] = spread(plane.ravel(), own.query_cells // len(sure)).reshape(plane.shape)
        return sure

    def _refine(
        self,
        features: NDArray[np.float32],
        sure: NDArray[np.bool_],
        logits: NDArray[np.float32],
        threads: int | None,
    ) -> tuple[str, ...]:
        """Replace `logits` [1, N+1, h, w] of one query [1, C, h, w]; returns warnings."""
        own = self.settings
        beside = self.resident.beside
        samples = [Samples(beside(features, self.support.features), self.support.weights)]
        if own.query_weight > 0:
            if not sure[1:].any():
                return (_NO_CELL,)
            samples.append(Samples(features, sure[None] * np.float32(own.query_weight)))
        start = ops.Mlp(*(beside(features, array) for array in self.start))
        network = train(samples, start, self.steps, own, threads)
        if network is None:
            return (_NOT_LEARNED,)
        scores = ops.online_mlp_scores(
            features, network, length=own.length or None, precision=own.precision, threads=threads
        )
        share = own.match_share
        ops.blend(logits, share * own.temperature / self.rough.scale, scores, 1 - share)
        return ()


def train(
    samples: Sequence[Samples],
    start: ops.Mlp,
    steps: int,
    settings: SrofbSettings,
    threads: int | None,
) -> ops.Mlp | None:
    """The network after `steps`; None where its loss did not fall."""
    begun = ops.online_mlp_fit(
        balanced(samples, settings.balance),
        start,
        iterations=steps,
        learning_rate=settings.learning_rate,
        momentum=settings.momentum,
        dropout=settings.dropout,
        length=settings.length or None,
        seed=settings.seed,
        precision=settings.precision,
        threads=threads,
    )
    fit = ops.settled(begun)
    learned = not fit.diverged and (steps < 2 or fit.losses[-1] <= fit.losses[0])
    return fit.mlp if learned else None


class Srofb:
    """The method. Its state is PANet's, and the labelled cells of every shot: their features
    "cells" [S, C, n], and "cell_weights" [S, 2, n] of foreground and background."""

    properties = frozenset({"deterministic", "self_segmenting", "on_device"})
    graphs: tuple[str, ...] = ()

    def __init__(self, name: str = _NAMES[0], settings_type: type[Any] = SrofbSettings) -> None:
        self.name, self.settings_type = name, settings_type

    @classmethod
    def fast(cls) -> Srofb:
        """The same with settings for a camera."""
        return cls(_NAMES[1], SrofbFastSettings)

    def summarise(
        self,
        shots: Shots,
        settings: SrofbSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        if settings.panet.refine_weak:
            shots = refine_weak(shots, threads)
        state = _PANET.summarise(shots, settings.panet, graphs, threads=threads)
        own = labelled_cells(shots, shots.features, settings.support_cells)
        return State(state.way, {**state.arrays, **dict(zip(CELLS, own, strict=True))})

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        _PANET.check(check_cells(state, channels, grid), channels, grid)

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        if method in _NAMES:  # how it learns carries over, how much it computes does not
            return {name: value for name, value in settings.items() if name not in BUDGET}
        return {"panet": _PANET.settings_from(method, settings)}

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: SrofbSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> SrofbFitted:
        rough = _PANET.fit(state, n_ways, settings.panet, graphs)
        support = Samples.of_shots(
            state.arrays["cells"], state.arrays["cell_weights"], state.way, n_ways
        )
        channels = support.features.shape[1]
        start = ops.online_mlp_start(channels, settings.hidden, n_ways + 1, settings.seed)
        # at zero no class is favoured, whatever their order
        start = start._replace(
            output_weight=np.zeros_like(start.output_weight),
            output_bias=np.zeros_like(start.output_bias),
        )
        warnings: tuple[str, ...] = ()
        if settings.warm_start:
            warm = train([support], start, settings.warm_iterations, settings, threads)
            warnings = () if warm is not None else (_NOT_LEARNED,)
            start = warm or start
        steps = settings.iterations_at(len(state) / n_ways)
        return SrofbFitted(rough, support, start, steps, settings, warnings)
