"""Logistic regression: one linear classifier of cells for each class, learned from the support.

The baseline "LogReg" of OSLSM (Shaban et al., BMVC 2017, section 6). Each class against everything
else, all labelled cells in every step, all classes at once, in `prepare`; a query then costs one
pass over its features. Cells are scaled to one length before, so that one rate of learning suits
every encoder; a cell of the query likewise, which is a cosine with the weights. Whether a class is
there at all is judged by PANet's match.
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

__all__ = ["Logreg", "LogregFitted", "LogregSettings"]

_PANET = Panet()


@dataclass(frozen=True)
class LogregSettings:
    """panet: of the match that presence is judged by. length: to which a cell's features are
    scaled. steps, rate, momentum, l2: of the gradient descent on the mean loss over cells plus
    l2 / 2 times the squared weights, as `ops.logistic_fit` takes them. balanced: the cells of a
    class weigh as much as all others; else every cell the same. cells: about how many labelled
    cells it learns from; of more, the same share of every class and of the background, chosen by
    `seed`. The default leaves five pictures of 60 x 60 cells whole; 254 classes at that grid take
    20 MB for their targets instead of 0.9 GB."""

    panet: PanetSettings = field(default_factory=PanetSettings)
    length: float = 8.0
    steps: int = 100
    rate: float = 1.0
    momentum: float = 0.9
    l2: float = 0.3
    balanced: bool = True
    cells: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        check_range("length", self.length, 1e-3, 1e3)
        check_range("steps", self.steps, 1, 100_000)
        check_range("rate", self.rate, 1e-6, 2.0)
        check_range("momentum", self.momentum, 0.0, 0.999)
        check_range("l2", self.l2, 0.0, 100.0)
        check_range("cells", self.cells, 1000, 1_000_000)
        check_range("seed", self.seed, 0, (1 << 32) - 1)


@dataclass(frozen=True)
class LogregFitted(OnPanet):
    """weights: [N, C]; factor, bias: [N]: the logit of a cell is factor * cosine + bias."""

    rough: PanetFitted
    weights: NDArray[np.float32]
    factor: NDArray[np.float32]
    bias: NDArray[np.float32]
    warnings: tuple[str, ...] = ()
    activation: Literal["softmax", "sigmoid", "none"] = "sigmoid"

    def match(
        self,
        features: NDArray[np.float32],
        extents: Sequence[tuple[float, float]] | None = None,
        *,
        threads: int | None = None,
    ) -> Match:
        rough = self.rough.match(features, threads=threads).logits
        cosines = ops.cosine_match(features, self.weights, 1.0, threads=threads)
        logits: NDArray[np.float32] = np.zeros(
            (len(features), 1 + self.n_ways, *features.shape[2:]), np.float32
        )
        np.multiply(cosines, self.factor[:, None, None], out=logits[:, 1:])
        logits[:, 1:] += self.bias[:, None, None]
        return Match(logits, evidence=rough)


class Logreg(OnCells):
    """The method."""

    name = "logreg"
    properties = frozenset({"pointwise", "deterministic", "self_segmenting"})
    settings_type: type[Any] = LogregSettings

    def fit(
        self,
        state: State,
        n_ways: int,
        settings: LogregSettings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> LogregFitted:
        rough = _PANET.fit(state, n_ways, settings.panet, graphs)
        rows = labelled_rows(state, n_ways).thinned(settings.cells, settings.seed)
        targets = rows.member[:, 1:].astype(np.float32)
        found = ops.logistic_fit(
            rows.features * np.float32(settings.length),
            targets,
            cell_weights(targets, settings.balanced),
            steps=settings.steps,
            rate=settings.rate,
            momentum=settings.momentum,
            l2=settings.l2,
            threads=threads,
        )
        length = np.sqrt(np.square(found.weight, dtype=np.float64).sum(axis=1)) * settings.length
        return LogregFitted(rough, found.weight, length.astype(np.float32), found.bias)


def cell_weights(targets: NDArray[np.float32], balanced: bool) -> NDArray[np.float32]:
    """[M, N] with sum 1 for each class, of targets [M, N] of 0 and 1: what a cell counts in the
    regression of that class."""
    count = max(len(targets), 1)
    if not balanced:
        return np.full_like(targets, 1 / count)
    shown = targets.sum(axis=0, dtype=np.float64)
    mass = np.stack([count - shown, shown])
    some = (mass > 0).sum(axis=0)
    share = np.divide(1.0, mass * some, out=np.zeros_like(mass), where=mass > 0)
    outside, inside = share.astype(np.float32)
    weights: NDArray[np.float32] = np.where(targets > 0, inside, outside)
    return weights
