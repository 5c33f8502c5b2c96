"""PANet (Wang et al., ICCV 2019): prototypes by masked average pooling, cosine, argmax.

A class is the mean over its shots of the average feature under the mask (eq. 1); background is
one more prototype (eq. 2); a cell belongs to the prototype with the largest cosine (eq. 3).
The published code upsamples features to pool them; the grid weights used here give the same
numbers (they are the transpose of that upsampling). Background may also have a few prototypes
instead of one (`background_parts`); its cosine is then the largest of theirs.

Where nothing at all is marked as background (every mask covers its whole picture), the
background prototype is zero and its cosine 0: a cell then belongs to a class unless its cosine
to every class is 0 or less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from .base import Match, NamedGraph, Presence, Shots, State, check_state
from .facts import mean_of, support_facts
from .parts import EPS, gather, split
from .presence import PresenceModel, SupportFacts, presence_descriptors, presence_of
from .settings import check_range
from .weak import refine_weak

__all__ = ["OnPanet", "Panet", "PanetFitted", "PanetSettings"]


@dataclass(frozen=True)
class PanetSettings:
    """scale: factor on the cosine. background: "mean-of-shots" averages the backgrounds of
    shots, then of ways (PANet); "pool-of-pixels" weighs every background pixel alike.
    background_parts: prototypes of the background, 1 (PANet) to 16.
    refine_weak: replace a box or scribble by what the shot's own prototypes find there.
    presence: coefficients of the absent-class score, or None for the neutral default."""

    scale: float = 20.0
    background: Literal["mean-of-shots", "pool-of-pixels"] = "mean-of-shots"
    background_parts: int = 1
    refine_weak: bool = False
    presence: PresenceModel | None = None

    def __post_init__(self) -> None:
        check_range("scale", self.scale, 0.1, 1000.0)
        check_range("background_parts", self.background_parts, 1, 16)


@dataclass(frozen=True)
class PanetFitted:
    """prototypes: [parts + N, C] float32, the background's parts, none of them empty, first."""

    prototypes: NDArray[np.float32]
    parts: int
    scale: float
    facts: SupportFacts
    presence_model: PresenceModel | None
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    resident: ops.Resident = field(default_factory=ops.Resident, repr=False, compare=False)

    @property
    def n_ways(self) -> int:
        return len(self.prototypes) - self.parts

    @property
    def planes(self) -> NDArray[np.uint8] | None:
        return None

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        prototypes = self.resident.beside(features, self.prototypes)
        every = ops.cosine_match(features, prototypes, self.scale, threads=threads)
        return Match(every if self.parts == 1 else ops.largest_of_first(every, self.parts))

    def presence(self, evidence: NDArray[np.float32]) -> Presence:
        return presence_of(evidence / np.float32(self.scale), self.facts, self.presence_model)

    def describe(self, evidence: NDArray[np.float32]) -> NDArray[np.float32]:
        return presence_descriptors(evidence / np.float32(self.scale), self.facts)


class OnPanet:
    """The fitted support of a method that begins with PANet's match, `rough`; whether a class is
    there at all is judged by that alone."""

    rough: PanetFitted

    @property
    def n_ways(self) -> int:
        return self.rough.n_ways

    @property
    def planes(self) -> NDArray[np.uint8] | None:
        return None

    def presence(self, evidence: NDArray[np.float32]) -> Presence:
        return self.rough.presence(evidence)

    def describe(self, evidence: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.rough.describe(evidence)


class Panet:
    """The method. Its state holds, for every shot, the pooled foreground and the background's
    pooled parts, the mass of each part in cells, the foreground's share of what is marked, and
    all of them pooled over unit features (for what the support scores itself: the mean cosine of
    a region to any prototype is one dot product with that)."""

    name = "panet"
    properties = frozenset(
        {
            *("pointwise", "mean_prototype", "deterministic", "self_segmenting"),
            *("on_device", "capturable"),
        }
    )
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
        parts = settings.background_parts
        mass, share = np.empty((count, parts), np.float32), np.empty(count, np.float32)
        pooled = np.empty((2, count, 1 + parts, channels), np.float32)
        if settings.refine_weak:
            shots = refine_weak(shots, threads)
        for picture in range(len(shots.features)):
            rows = np.flatnonzero(shots.picture == picture)
            features = shots.features[picture : picture + 1]
            weights = np.stack([shots.foreground[rows], shots.background[rows]], axis=1)
            regions = np.stack(
                [
                    np.concatenate([w[:1], split(features[0], w[1], parts, threads=threads)])
                    for w in weights
                ]
            )  # [rows, 1 + parts, h, w]
            by_cell = np.stack([regions, regions * _inverse_norms(features[0])])
            planes = by_cell.reshape(1, -1, *features.shape[2:])
            means = ops.weighted_pool(features, planes, EPS, threads=threads)
            raw, unit = means.reshape(2, len(rows), 1 + parts, channels)
            sums = by_cell.sum(axis=(3, 4), dtype=np.float64)
            mass[rows] = sums[0, :, 1:] / len(rows)  # one picture's background counts once
            share[rows] = sums[0, :, 0] / np.maximum(sums[0].sum(axis=1), EPS)
            # weighted_pool has divided by the sum of w/|f|; the mean cosine divides by that of w
            unit *= np.divide(sums[1], sums[0], out=np.zeros_like(sums[0]), where=sums[0] > 0)[
                ..., None
            ]
            pooled[0, rows], pooled[1, rows] = raw, unit
        return State(
            shots.way,
            {
                "foreground": pooled[0, :, 0],
                "background": pooled[0, :, 1:],
                "foreground_unit": pooled[1, :, 0],
                "background_unit": pooled[1, :, 1:],
                "background_mass": mass,
                "foreground_share": share,
            },
        )

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        background = state.arrays.get("background", np.empty((0, 0)))
        parts = background.shape[1] if background.ndim > 1 else 0
        check_state(
            state,
            {
                "foreground": (channels,),
                "background": (parts, channels),
                "foreground_unit": (channels,),
                "background_unit": (parts, channels),
                "background_mass": (parts,),
                "foreground_share": (),
            },
        )

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Also for a method that begins with PANet's match: its ``panet``."""
        own: Mapping[str, Any] = settings if method == self.name else settings.get("panet", {})
        return own

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: PanetSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> PanetFitted:
        rows_of = [np.flatnonzero(state.way == way) for way in range(n_ways)]
        arrays = state.arrays
        foreground = np.stack([mean_of(arrays["foreground"][rows]) for rows in rows_of])
        background = _background(state, rows_of, settings)
        prototypes = np.concatenate([background, foreground]).astype(np.float32)

        return PanetFitted(
            prototypes=prototypes,
            parts=len(background),
            scale=settings.scale,
            facts=support_facts(state, n_ways, prototypes, len(background)),
            presence_model=settings.presence,
        )


def _background(
    state: State, rows_of: list[NDArray[np.intp]], settings: PanetSettings
) -> NDArray[np.float64]:
    """[P, C] by the rule, P = 1 to `background_parts`; zero where no shot has any background."""
    vectors, mass = state.arrays["background"], state.arrays["background_mass"]
    weights = mass.astype(np.float64)
    if settings.background == "mean-of-shots":
        total = weights.sum(axis=1)
        with_some = [rows[total[rows] > 0] for rows in rows_of]
        ways = sum(len(rows) > 0 for rows in with_some)
        for rows in with_some:
            weights[rows] /= total[rows, None] * (len(rows) * ways)
    flat = vectors.reshape(-1, vectors.shape[2])
    found = gather(flat, weights.ravel(), settings.background_parts)
    some = found.any(axis=1)  # an empty part would score 0 where all others score less
    return found[some] if some.any() else found[:1]


def _inverse_norms(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """[h, w] of one picture's features [C, h, w]; 0 for a cell whose features are all zero."""
    squares = np.einsum("chw,chw->hw", features, features)
    inverse: NDArray[np.float32] = np.divide(
        1.0, np.sqrt(squares), out=np.zeros_like(squares), where=squares > 0
    )
    return inverse
