"""What `nearest`, `logreg` and `siamese` have alike: a support is its labelled cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .base import NamedGraph, Shots, State
from .cells import CELLS, check_cells, labelled_cells
from .panet import Panet, PanetSettings
from .rows import unit_cells
from .weak import refine_weak

__all__ = ["OnCells"]

_PANET = Panet()


class _Settings(Protocol):
    @property
    def panet(self) -> PanetSettings: ...


class OnCells:
    """A method whose state is PANet's, for presence, and every shot's cells at length 1 with their
    weights."""

    graphs: tuple[str, ...] = ()

    def encoded(
        self, features: NDArray[np.float32], graphs: Mapping[str, NamedGraph]
    ) -> NDArray[np.float32]:
        """[B, D, h, w] that cells are taken from, of features [B, C, h, w]; D is C without graphs
        of the method's own."""
        return features

    def summarise(
        self,
        shots: Shots,
        settings: _Settings,
        graphs: Mapping[str, NamedGraph],
        *,
        threads: int | None = None,
    ) -> State:
        encoded = self.encoded(shots.features, graphs)
        if settings.panet.refine_weak:
            shots = refine_weak(shots, threads)
        state = _PANET.summarise(shots, settings.panet, {}, threads=threads)
        cells, weights = labelled_cells(shots, encoded)
        own = dict(zip(CELLS, (unit_cells(cells), weights), strict=True))
        return State(state.way, {**state.arrays, **own})

    def check(self, state: State, channels: int, grid: tuple[int, int]) -> None:
        width = -1 if self.graphs else channels
        _PANET.check(check_cells(state, width, grid, unit=True), channels, grid)

    def settings_from(self, method: str, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"panet": _PANET.settings_from(method, settings)}
