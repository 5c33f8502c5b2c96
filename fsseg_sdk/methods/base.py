"""What a method is: how support features become scores on a query.

A method sees features, grid weights of masks, named graphs and its own settings; nothing else.
It turns every shot into one row of a `State` (`summarise`), rows of all shots into something
that can be matched (`fit`), and that gives scores on the grid of a query (`Fitted.match`).
Pictures, files, backends and native sizes are the Segmenter's business.

Shape symbols: I different support pictures, S shots, N ways, C channels, (h, w) grid, B queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .state import State, check_state, combine

__all__ = [
    "PROPERTIES",
    "AuxiliaryMethod",
    "Fitted",
    "Match",
    "Method",
    "NamedGraph",
    "Presence",
    "Shots",
    "State",
    "check_state",
    "combine",
]

PROPERTIES: Mapping[str, str] = MappingProxyType(
    {
        "pointwise": "a cell's score depends on that cell's features alone",
        "mean_prototype": "giving every shot twice changes nothing",
        "deterministic": "the same call gives the same bits",
        "self_segmenting": "a support picture, asked as a query, gives its own mask back",
        "auxiliary": "learns from pictures of which only the class is known: `AuxiliaryMethod`",
        "on_device": "its match takes features in the memory of a GPU, and leaves its logits there",
        "capturable": "beside on_device: its match there looks at no result, so that a query as a "
        "whole can be recorded as a CUDA graph",
        "masked_images": "reads the labelled pictures, with all but the class masked out",
    }
)
"""What a method can declare; the conformance suite tests what is declared."""


class NamedGraph(Protocol):
    """What a method may know of a graph: named tensors in, named tensors out."""

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class Shots:
    """Labelled support pictures on the encoder's grid.

    features: [I, C, h, w] float32, one per different picture (a picture that is labelled for two
        classes is encoded once and is two shots).
    picture: [S] int64 in 0..I-1, the picture of each shot.
    foreground, background: [S, h, w] float32 grid weights in cells: the whole picture weighs as
        much as the cells that it covers. Ignored pixels are in neither; pixels that any shot
        of the same picture marks as its class are no background.
    possible: [S, h, w] float32, where the class may be: the mask, the inside of the box, or
        whatever is near a scribble and not marked as background.
    way: [S] int64 in 0..N-1.
    weak: [S] bool, true for boxes and scribbles.
    masked: [S, 3, S_h, S_w] float32, the encoder's input of each shot's picture with all that is
        not of the class at the mean colour; for methods that declare "masked_images", else None.
    """

    features: NDArray[np.float32]
    picture: NDArray[np.int64]
    foreground: NDArray[np.float32]
    background: NDArray[np.float32]
    possible: NDArray[np.float32]
    way: NDArray[np.int64]
    weak: NDArray[np.bool_]
    masked: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Match:
    """logits: [B, P, h, w] float32, background first; the label is that of the plane which is the
    largest after bilinear upsampling (`Fitted.planes`; P = N+1 where that is None). warnings: one
    tuple of sentences per query, or empty for none at all. evidence: [B, N+1, h, w] float32, what
    `Fitted.presence` looks at; None: the logits. Of features on a device (`ops.DeviceArray`, for
    methods that declare "on_device") both are there, too."""

    logits: NDArray[np.float32]
    warnings: tuple[tuple[str, ...], ...] = ()
    evidence: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Presence:
    """scores: [N] in 0..1, how sure it is that each class is in the picture; a class counts as
    present from `threshold` on. Without calibration the scores only rank pictures."""

    scores: NDArray[np.float32]
    threshold: float
    calibrated: bool
    warnings: tuple[str, ...] = field(default=())


class Fitted(Protocol):
    """A support set ready for queries. Immutable; used by many threads at once."""

    @property
    def n_ways(self) -> int: ...

    @property
    def activation(self) -> Literal["softmax", "sigmoid", "none"]:
        """What turns upsampled logits into scores in 0..1. With "sigmoid" the planes of classes
        stand each for itself, and that of the background is 0 everywhere."""

    @property
    def planes(self) -> NDArray[np.uint8] | None:
        """[P] the label that each plane of the logits stands for, rising, 0 the background's alone;
        a class may have several. None: one plane for each label, in their order."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What every Result of this support should say."""

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        """Scores on the grid. features: [B, C, h, w] float32. extents: rows and columns of cells
        that each picture covers, from the top left; all of them if None."""

    def presence(self, evidence: NDArray[np.float32]) -> Presence:
        """From `Match.evidence` of one query, [N+1, h, w]: the cells that its picture covers,
        stitched from tiles or not."""

    def describe(self, evidence: NDArray[np.float32]) -> NDArray[np.float32]:
        """[N, D] what `presence` looks at; calibration is fitted on these."""


class Method(Protocol):
    """One way to segment from examples. Stateless: all that it knows is in its arguments."""

    @property
    def name(self) -> str: ...

    @property
    def properties(self) -> frozenset[str]:
        """Keys of `PROPERTIES` that hold for this method."""

    @property
    def graphs(self) -> tuple[str, ...]:
        """Graphs that a bundle must have beside "encoder"."""

    @property
    def settings_type(self) -> type[Any]:
        """A frozen dataclass with a default for every field; checks ranges when made."""

    def summarise(
        self,
        shots: Shots,
        settings: Any,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        """One row a shot, each computed from its own picture alone."""

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        """InputError unless this method could have made `state` from features [C, h, w] of these
        channels and this grid."""

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """What carries over from a bundle made for another method, as parsed JSON; the rest are
        this method's defaults."""

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: Any,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> Fitted:
        """Every way in 0..n_ways-1 has a row or more."""


class AuxiliaryMethod(Method, Protocol):
    """A method that declares "auxiliary": it also learns from pictures that show a class and are
    not labelled any further. What it keeps of them is `State.auxiliary`."""

    def summarise_auxiliary(
        self,
        features: NDArray[np.float32],
        ways: NDArray[np.int64],
        extents: Sequence[tuple[float, float]] | None,
        settings: Any,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        """One row per picture, in order. features: [U, C, h, w] float32; ways: [U] int64, the class
        that each shows; extents: as in `Fitted.match`."""

    def kept(
        self, state: State, n_ways: int, settings: Any, *, threads: int | None = None
    ) -> NDArray[np.float32]:
        """[steps, U, h, w] in 0..1: how much each cell of each auxiliary picture of a state gives
        to its class, step by step."""
