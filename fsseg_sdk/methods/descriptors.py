"""What the presence score looks at: a handful of numbers per class, from its cosine map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

__all__ = ["DESCRIPTORS", "SupportFacts", "presence_descriptors"]

DESCRIPTORS: Mapping[str, str] = MappingProxyType(
    {
        "top_cosine": "mean cosine to the class over the cells most like it",
        "top_margin": "mean of the largest margins (cosine to the class less the best other)",
        "top_cosine_to_self": "top_cosine minus what the support's own foreground scores",
        "top_margin_to_self": "top_margin over the support's own margin (within -3..3)",
        "won_fraction": "log10 of the share of cells where the class is the best",
        "won_margin": "mean margin over these cells (0 if there are none)",
        "won_cosine_to_self": "mean cosine over these (or the top) cells minus the support's",
        "contrast": "top_cosine in standard deviations above the mean of the map",
        "scene_to_self": "mean background cosine of the other cells minus the support's own",
        "mean_cosine_to_self": "mean cosine to the class over all cells minus the support's",
        "explained_to_self": "mean of the best cosine of each cell minus the support's",
        "prototype_cosine": "cosine between the prototypes of class and background",
        "self_cosine": "mean cosine of the support's own foreground to its prototype",
        "self_margin": "mean margin of the support's own foreground",
        "log_shots": "log2 of the number of shots",
    }
)
_TOP_CELLS = 36
"""The most cells that count as "most like it": 1 % of the map, but not more than an object of a
usual size has when a large picture is stitched from tiles."""


@dataclass(frozen=True)
class SupportFacts:
    """What the support scores under the prototypes that it gave; each [N] float32.

    self_cosine, self_margin: its foreground, to the class and over the best other;
    background_cosine: its background to the background; mean_cosine: all of it to the class;
    explained: foreground to the class and background to the background; prototype_cosine: class
    to background; shots: how many.
    """

    self_cosine: NDArray[np.float32]
    self_margin: NDArray[np.float32]
    background_cosine: NDArray[np.float32]
    mean_cosine: NDArray[np.float32]
    explained: NDArray[np.float32]
    prototype_cosine: NDArray[np.float32]
    shots: NDArray[np.float32]


def presence_descriptors(
    cosines: NDArray[np.float32], facts: SupportFacts, names: Sequence[str] = tuple(DESCRIPTORS)
) -> NDArray[np.float32]:
    """[N, len(names)] float32, columns in the order of `names`; what they do not need is not
    computed.

    cosines: [N+1, h, w] float32, unscaled, background first; finite.
    """
    maps = _Maps(cosines.reshape(len(cosines), -1))
    columns = np.empty((len(cosines) - 1, len(names)), np.float32)
    for index, name in enumerate(names):
        columns[:, index] = _COLUMNS[name](maps, facts)
    return columns


@dataclass(frozen=True, eq=False)
class _Maps:
    """flat: [N+1, cells], background first. What descriptors share, each [N]."""

    flat: NDArray[np.float32]

    @property
    def cells(self) -> int:
        return self.flat.shape[1]

    @property
    def foreground(self) -> NDArray[np.float32]:
        return self.flat[1:]

    @cached_property
    def margin(self) -> NDArray[np.float32]:
        """[N, cells]"""
        return _margins(self.flat)

    @cached_property
    def won(self) -> NDArray[np.float32]:
        """[N, cells]: 1 where the class is the best, else 0."""
        return (self.margin > 0).astype(np.float32)

    @cached_property
    def won_cells(self) -> NDArray[np.float32]:
        return np.add.reduce(self.won, axis=1)

    @cached_property
    def top_cosine(self) -> NDArray[np.float32]:
        return _top_mean(self.foreground)

    @cached_property
    def top_margin(self) -> NDArray[np.float32]:
        return _top_mean(self.margin)

    @cached_property
    def mean(self) -> NDArray[np.float32]:
        return np.add.reduce(self.foreground, axis=1) / self.cells

    def mean_won(self, of: NDArray[np.float32]) -> NDArray[np.float32]:
        """of: [N, cells]. The mean over the cells that the class wins, 0 without any."""
        return np.add.reduce(self.won * of, axis=1) / np.maximum(self.won_cells, 1.0)

    def won_cosine(self) -> NDArray[np.float32]:
        return np.where(self.won_cells > 0, self.mean_won(self.foreground), self.top_cosine)

    def contrast(self) -> NDArray[np.float32]:
        squares = np.add.reduce(self.foreground * self.foreground, axis=1) / self.cells
        spread = np.sqrt(np.maximum(squares - self.mean**2, 0))
        return (self.top_cosine - self.mean) / np.maximum(spread, 1e-3)

    def scene_to(self, own: NDArray[np.float32]) -> NDArray[np.float32]:
        background, lost = self.flat[0], self.cells - self.won_cells
        scene = (background.sum() - self.won @ background) / np.maximum(lost, 1.0)
        return np.where(lost > 0, scene - own, 0.0)


def _relative_margin(maps: _Maps, facts: SupportFacts) -> NDArray[np.float32]:
    ratio = maps.top_margin / np.maximum(facts.self_margin, 0.02)
    return np.minimum(np.maximum(ratio, -3.0), 3.0)


_COLUMNS: Mapping[str, Callable[[_Maps, SupportFacts], NDArray[np.float32]]] = MappingProxyType(
    {
        "top_cosine": lambda maps, _: maps.top_cosine,
        "top_margin": lambda maps, _: maps.top_margin,
        "top_cosine_to_self": lambda maps, facts: maps.top_cosine - facts.self_cosine,
        "top_margin_to_self": _relative_margin,
        "won_fraction": lambda maps, _: np.log10((maps.won_cells + 0.5) / maps.cells),
        "won_margin": lambda maps, _: maps.mean_won(maps.margin),
        "won_cosine_to_self": lambda maps, facts: maps.won_cosine() - facts.self_cosine,
        "contrast": lambda maps, _: maps.contrast(),
        "scene_to_self": lambda maps, facts: maps.scene_to(facts.background_cosine),
        "mean_cosine_to_self": lambda maps, facts: maps.mean - facts.mean_cosine,
        "explained_to_self": lambda maps, facts: maps.flat.max(axis=0).mean() - facts.explained,
        "prototype_cosine": lambda _, facts: facts.prototype_cosine,
        "self_cosine": lambda _, facts: facts.self_cosine,
        "self_margin": lambda _, facts: facts.self_margin,
        "log_shots": lambda _, facts: np.log2(facts.shots),
    }
)


def _margins(flat: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, cells]: the cosine to a class minus the largest to any other, background included."""
    if len(flat) == 2:
        return flat[1:] - flat[:1]
    best_two: NDArray[np.float32] = np.partition(flat, len(flat) - 2, axis=0)[-2:]
    winner = flat.argmax(axis=0)
    is_winner = np.arange(1, len(flat))[:, None] == winner
    margins: NDArray[np.float32] = flat[1:] - np.where(is_winner, best_two[0], best_two[1])
    return margins


def _top_mean(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, cells] -> [N]: the mean of the largest, added up in one order whatever theirs was."""
    top = min(max(maps.shape[1] // 100, 1), _TOP_CELLS)
    chosen = np.partition(maps, maps.shape[1] - top, axis=1)[:, -top:]
    result: NDArray[np.float32] = np.add.reduce(np.sort(chosen, axis=1), axis=1) / top
    return result
