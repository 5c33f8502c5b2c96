"""OSLSM (Shaban et al., "One-Shot Learning for Semantic Segmentation", BMVC 2017): one pass turns
an example into a classifier.

A trained network, the graph "oslsm_conditioner" of the bundle, reads a labelled picture in which
everything but the class is masked out, and gives the parameters of a logistic regression of cells
(eq. 1): image [B, 3, S_h, S_w] -> parameters [B, C+1], the weights and then the bias. A query's
features meet the classifiers of all shots in one pass (eq. 2). A pixel is of a class where any of
the class's shots says so, at a probability of 0.5 after upsampling: the logical OR of section 4.4.
Of several classes the one with the largest probability wins.

Each shot is a plane of logits, and the background one that is 0 everywhere, that is 0.5; so the
largest plane of a pixel is the threshold and the OR in one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .. import ops
from ..errors import InputError
from ..ops.imaging import MOST_PLANES
from .base import Match, NamedGraph, Presence, Shots, State, check_state
from .descriptors import SupportFacts
from .graphs import run
from .presence import PresenceModel, presence_descriptors, presence_of

__all__ = ["Oslsm", "OslsmFitted", "OslsmSettings"]

_CONDITIONER = "oslsm_conditioner"
_MOST_SHOTS = MOST_PLANES - 1
"""One plane each, and one of the background."""
_NEUTRAL = PresenceModel(("top_margin",), (0.0,), (1.0,), (1.0,), 0.0, 0.0)
"""Without calibration: the probability of the cells most like the class. Rules nothing out."""


@dataclass(frozen=True)
class OslsmSettings:
    """presence: coefficients of the absent-class score, or None for the neutral default. They look
    at logits here, so that those of another method mean nothing."""

    presence: PresenceModel | None = None


@dataclass(frozen=True)
class OslsmFitted:
    """weights: [1+S, C], bias: [1+S], planes: [1+S]: one classifier a shot, by class, after that of
    the background, which is zero."""

    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    planes: NDArray[np.uint8]
    presence_model: PresenceModel | None
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "sigmoid"

    @property
    def n_ways(self) -> int:
        return int(self.planes[-1])

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        logits = ops.linear_match(features, self.weights, self.bias, threads=threads)
        first = np.searchsorted(self.planes, np.arange(self.n_ways + 1))
        best = None  # one shot a class: the logits as they are
        if len(first) < len(self.planes):
            best = np.maximum.reduceat(logits, first, axis=1)
        return Match(logits, evidence=best)

    def presence(self, evidence: NDArray[np.float32]) -> Presence:
        return presence_of(evidence, self._facts(), self.presence_model, _NEUTRAL)

    def describe(self, evidence: NDArray[np.float32]) -> NDArray[np.float32]:
        return presence_descriptors(evidence, self._facts())

    def _facts(self) -> SupportFacts:
        """Nothing but the number of shots: what a support scores itself says little of logits."""
        shots = np.bincount(self.planes)[1:].astype(np.float32)
        none = np.zeros_like(shots)
        return SupportFacts(none, none, none, none, none, none, shots)


class Oslsm:
    """The method. Its state is one classifier a shot."""

    name = "oslsm"
    properties = frozenset({"pointwise", "deterministic", "masked_images"})
    graphs: tuple[str, ...] = (_CONDITIONER,)
    settings_type: type[Any] = OslsmSettings

    def summarise(
        self,
        shots: Shots,
        settings: OslsmSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        if shots.masked is None:
            raise InputError(
                "shots.masked",
                expected="the masked picture of every shot",
                got="none",
                remedy="Prepare the support through a Segmenter.",
            )
        expected = (1, shots.features.shape[1] + 1)
        found = [
            run(graphs, _CONDITIONER, {"image": image[None]}, "parameters", expected)
            for image in shots.masked
        ]
        return State(shots.way, {"parameters": np.concatenate(found)})

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        check_state(state, {"parameters": (channels + 1,)})
        _check_count(len(state))
        if not np.isfinite(state.arrays["parameters"]).all():
            raise InputError(
                "state array 'parameters'",
                expected="finite numbers",
                got="NaN or infinity",
                remedy="The state was not made by this method and encoder; prepare it again.",
            )

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {}

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: OslsmSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> OslsmFitted:
        _check_count(len(state))
        order = np.argsort(state.way, kind="stable")
        parameters = np.pad(state.arrays["parameters"][order], ((1, 0), (0, 0)))
        planes = np.concatenate([[0], state.way[order] + 1]).astype(np.uint8)
        weights = np.ascontiguousarray(parameters[:, :-1])
        bias = np.ascontiguousarray(parameters[:, -1])
        return OslsmFitted(weights, bias, planes, settings.presence)


def _check_count(shots: int) -> None:
    """InputError where there are more shots than planes."""
    if shots > _MOST_SHOTS:
        raise InputError(
            "support",
            expected=f"at most {_MOST_SHOTS} labelled masks for method 'oslsm'",
            got=str(shots),
            remedy="Give fewer shots a class; each is one classifier more for every query.",
        )
