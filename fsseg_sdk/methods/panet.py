"""PANet (Wang et al., ICCV 2019): prototypes by masked average pooling, cosine, argmax.

A class is the mean over its shots of the average feature under the mask (eq. 1); background is
one more prototype (eq. 2); a cell belongs to the prototype with the largest cosine (eq. 3).
The published code upsamples features to pool them; the grid weights used here give the same
numbers (they are the transpose of that upsampling).

Where nothing at all is marked as background (every mask covers its whole picture), the
background prototype is zero and its cosine 0: a cell then belongs to a class unless its cosine
to every class is 0 or less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Match, NamedGraph, Presence, Shots, State, check_state
from .presence import PresenceModel, SupportFacts, presence_descriptors, presence_of
from .settings import check_range

__all__ = ["Panet", "PanetFitted", "PanetSettings"]

_EPS = 1e-12
"""Added to the sum of weights in cells: far below one pixel, so an empty map gives zero."""


@dataclass(frozen=True)
class PanetSettings:
    """scale: factor on the cosine. background: "mean-of-shots" averages the backgrounds of
    shots, then of ways (PANet); "pool-of-pixels" weighs every background pixel alike.
    refine_weak: replace a box or scribble by what the shot's own prototypes find there.
    presence: coefficients of the absent-class score, or None for the neutral default."""

    scale: float = 20.0
    background: Literal["mean-of-shots", "pool-of-pixels"] = "mean-of-shots"
    refine_weak: bool = False
    presence: PresenceModel | None = None

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 0.1, 1000.0)


@dataclass(frozen=True)
class PanetFitted:
    """prototypes: [N+1, C] float32, background first."""

    prototypes: NDArray[np.float32]
    scale: float
    facts: SupportFacts
    presence_model: PresenceModel | None
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"

    @property
    def n_ways(self) -> int:
        return len(self.prototypes) - 1

    def match(self, features: NDArray[np.float32], *, threads: int | None = None) -> Match:
        return Match(ops.cosine_match(features, self.prototypes, self.scale, threads=threads))

    def presence(self, logits: NDArray[np.float32]) -> Presence:
        return presence_of(logits / np.float32(self.scale), self.facts, self.presence_model)

    def describe(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        return presence_descriptors(logits / np.float32(self.scale), self.facts)


class Panet:
    """The method. Its state holds, for every shot, the pooled foreground and background, the
    background's mass in cells, the foreground's share of what is marked, and both pooled over
    unit features (for what the support scores itself: the mean cosine of a region to any
    prototype is one dot product with that)."""

    name = "panet"
    properties = frozenset({"pointwise", "mean_prototype", "deterministic", "self_segmenting"})
    graphs: tuple[str, ...] = ()
    settings_type: type[Any] = PanetSettings

    def summarise(
        self,
        shots: Shots,
        settings: PanetSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        count, channels = len(shots.way), shots.features.shape[1]
        background_mass, share = np.empty(count, np.float32), np.empty(count, np.float32)
        pooled = np.empty((4, count, channels), np.float32)
        for picture in range(len(shots.features)):
            rows = np.flatnonzero(shots.picture == picture)
            features = shots.features[picture : picture + 1]
            weights = np.concatenate([shots.foreground[rows], shots.background[rows]])
            if settings.refine_weak and shots.weak[rows].any():
                weights = _refine(features, weights, shots, rows, threads)
            by_cell = np.concatenate([weights, weights * _inverse_norms(features[0])])
            means = ops.weighted_pool(features, by_cell[None], _EPS, threads=threads)[0]
            raw, unit = means.reshape(2, 2, len(rows), channels)
            sums = by_cell.sum(axis=(1, 2), dtype=np.float64).reshape(2, 2, len(rows))
            background_mass[rows] = sums[0, 1] / len(rows)  # one picture's background counts once
            share[rows] = sums[0, 0] / np.maximum(sums[0].sum(axis=0), _EPS)
            # weighted_pool has divided by the sum of w/|f|; the mean cosine divides by that of w
            unit *= np.divide(sums[1], sums[0], out=np.zeros_like(sums[0]), where=sums[0] > 0)[
                ..., None
            ]
            pooled[:2, rows], pooled[2:, rows] = raw, unit
        return State(
            shots.way,
            {
                "foreground": pooled[0],
                "background": pooled[1],
                "foreground_unit": pooled[2],
                "background_unit": pooled[3],
                "background_mass": background_mass,
                "foreground_share": share,
            },
        )

    def check(self, state: State, channels: int) -> None:
        check_state(
            state,
            {
                "foreground": (channels,),
                "background": (channels,),
                "foreground_unit": (channels,),
                "background_unit": (channels,),
                "background_mass": (),
                "foreground_share": (),
            },
        )

    def fit(
        self, state: State, n_ways: int, settings: PanetSettings, graphs: Mapping[str, NamedGraph]
    ) -> PanetFitted:
        rows_of = [np.flatnonzero(state.way == way) for way in range(n_ways)]
        arrays = state.arrays
        foreground = np.stack([_mean(arrays["foreground"][rows]) for rows in rows_of])
        background = _background(state, rows_of, settings.background)
        prototypes = np.concatenate([background[None], foreground]).astype(np.float32)

        return PanetFitted(
            prototypes=prototypes,
            scale=settings.scale,
            facts=_facts(state, rows_of, prototypes),
            presence_model=settings.presence,
        )


def _facts(
    state: State, rows_of: list[NDArray[np.intp]], prototypes: NDArray[np.float32]
) -> SupportFacts:
    """Cosines of the support to its own prototypes, by class; means over its shots."""
    arrays = state.arrays
    unit = _unit(prototypes.astype(np.float64))
    foreground = arrays["foreground_unit"].astype(np.float64) @ unit.T  # [S, N+1]
    background = arrays["background_unit"].astype(np.float64) @ unit.T
    share = arrays["foreground_share"][:, None].astype(np.float64)
    whole = share * foreground + (1 - share) * background
    columns: list[list[float]] = []
    for way, rows in enumerate(rows_of, 1):
        own, scene, all_of_it = (_mean(maps[rows]) for maps in (foreground, background, whole))
        explained = share[rows, 0] * foreground[rows, way]
        explained += (1 - share[rows, 0]) * background[rows, 0]
        margin = own[way] - np.delete(own, way).max()
        fixed = (float(unit[way] @ unit[0]), float(len(rows)))
        columns.append([own[way], margin, scene[0], all_of_it[way], explained.mean(), *fixed])
    return SupportFacts(*np.array(columns, np.float32).T)


def _background(state: State, rows_of: list[NDArray[np.intp]], rule: str) -> NDArray[np.float64]:
    """[C] by the rule; zero where no shot has any background."""
    vectors, mass = state.arrays["background"], state.arrays["background_mass"]
    if rule == "pool-of-pixels":
        total = mass.sum(dtype=np.float64)
        weights = mass.astype(np.float64) / (total if total > 0 else 1.0)
        pooled: NDArray[np.float64] = (weights[:, None] * vectors).sum(axis=0)
        return pooled
    with_some = [rows[mass[rows] > 0] for rows in rows_of]
    per_way = [_mean(vectors[rows]) for rows in with_some if len(rows)]
    return _mean(np.stack(per_way)) if per_way else np.zeros(vectors.shape[1])


def _refine(
    features: NDArray[np.float32],
    weights: NDArray[np.float32],
    shots: Shots,
    rows: NDArray[np.intp],
    threads: int | None,
) -> NDArray[np.float32]:
    """One prediction of the picture by its own prototypes, kept inside `possible` where it
    leaves anything of the box or scribble. weights: [2 rows, h, w], foregrounds first."""
    count = len(rows)
    prototypes = ops.weighted_pool(features, weights[None], _EPS, threads=threads)[0]
    cosines = ops.cosine_match(features, prototypes, 1.0, threads=threads)[0]
    found = shots.possible[rows] * (cosines[:count] > cosines[count:])
    refined = weights.copy()
    for index in np.flatnonzero(shots.weak[rows]):
        if (found[index] * (weights[index] > 0)).sum() > 0:
            refined[index] = found[index]
    return refined


def _mean(rows: NDArray[Any]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = rows.mean(axis=0, dtype=np.float64)
    return result


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.sqrt((vectors * vectors).sum(axis=-1, keepdims=True))
    unit: NDArray[np.float64] = np.divide(
        vectors, norms, out=np.zeros_like(vectors), where=norms > 0
    )
    return unit


def _inverse_norms(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """[h, w] of one picture's features [C, h, w]; 0 for a cell whose features are all zero."""
    squares = np.einsum("chw,chw->hw", features, features)
    inverse: NDArray[np.float32] = np.divide(
        1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0
    )
    return inverse
