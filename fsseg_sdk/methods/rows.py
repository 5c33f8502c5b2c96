"""Labelled cells as rows: which cells of the support stand for which class.

A cell belongs to a class if more of it shows the class than background or any other class; where
masks overlap and two classes show as much, it belongs to both. A class of which no cell of a
picture does gets the cell with the largest share of it. Background is likewise what shows more
background than any class. Cells of neither, such as ignored or padded ones, are no rows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ops.counter import random_words
from .cells import CELLS
from .state import State

__all__ = ["Rows", "labelled_rows", "unit_cells"]

_AS_MUCH = np.float32(1 - 1e-5)
"""Weights of one cell in two masks count as equal up to the rounding of their sums."""


@dataclass(frozen=True)
class Rows:
    """features: [M, C] float32. member: [M, N+1] bool, of which classes a row is, background
    first; several where masks overlap."""

    features: NDArray[np.float32]
    member: NDArray[np.bool_]

    def grouped(
        self, share: float = 1.0, seed: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """(rows [R, C], group [R] in 0..N), by group; a row of several classes stands in each.

        share: of the rows of each group that is kept, at least one. Which rows these are depends on
        the seed and on the rows themselves, and not on where they stand."""
        chosen = self._chosen(share, seed)
        group = np.repeat(np.arange(len(chosen)), [len(index) for index in chosen])
        return self.features[np.concatenate(chosen)], group

    def thinned(self, most: int, seed: int) -> Rows:
        """At most about `most` rows: the same share of each group, chosen as `grouped` does, and
        at least one of each."""
        if len(self.features) <= most:
            return self
        kept = np.unique(np.concatenate(self._chosen(most / len(self.features), seed)))
        return Rows(self.features[kept], self.member[kept])

    def _chosen(self, share: float, seed: int) -> list[NDArray[np.intp]]:
        """Of each group the numbers of the rows that are kept, rising."""
        order = _order(self.features, seed) if share < 1 else None
        chosen = []
        for own in self.member.T:
            index = np.flatnonzero(own)
            if order is not None:
                most = int(np.ceil(share * len(index)))
                index = np.sort(index[np.argsort(order[index], kind="stable")[:most]])
            chosen.append(index)
        return chosen


def unit_cells(cells: NDArray[np.float32]) -> NDArray[np.float32]:
    """[S, C, n] at length 1; zero stays zero. Lengths in double: squares of what float32 holds may
    be beyond it. Shot by shot, so that the doubles take little room."""
    unit = np.empty_like(cells)
    for own, out in zip(cells, unit, strict=True):
        length = np.sqrt(np.square(own, dtype=np.float64).sum(axis=0))
        out[:] = own / np.where(length > 0, length, 1.0)
    return unit


def labelled_rows(state: State, n_ways: int) -> Rows:
    """The rows of a state that has `CELLS`. Shots of one picture, that is of equal cells, give its
    cells once, so that a picture with many classes costs what one with a single class does."""
    cells, weights = (state.arrays[name] for name in CELLS)
    pictures: dict[bytes, list[int]] = {}
    for shot, own in enumerate(cells):
        data = np.ascontiguousarray(own).data
        pictures.setdefault(hashlib.blake2b(data, digest_size=16).digest(), []).append(shot)
    features, member = [], []
    for shots in pictures.values():
        shown = np.zeros((n_ways, cells.shape[2]), np.float32)
        for shot in shots:
            own = shown[state.way[shot]]
            np.maximum(own, weights[shot, 0], out=own)
        belongs = _members(shown, weights[shots, 1].max(axis=0))
        some = belongs.any(axis=0)
        features.append(cells[shots[0]].T[some])
        member.append(belongs.T[some])
    return Rows(np.ascontiguousarray(np.concatenate(features)), np.concatenate(member))


def _members(shown: NDArray[np.float32], scene: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[N+1, n] of one picture's weights of classes [N, n] and of background [n]."""
    belongs = np.zeros((len(shown) + 1, len(scene)), np.bool_)
    top = shown.max(axis=0)
    belongs[1:] = (shown > scene) & (shown >= top * _AS_MUCH)
    for own, weight in zip(belongs[1:], shown, strict=True):
        if weight.any() and not own.any():
            own[:] = _largest(weight, np.maximum(scene, top))
    belongs[0] = (scene > top) & ~belongs[1:].any(axis=0)
    if scene.any() and not belongs[0].any():
        belongs[0] = _largest(scene, top)
    return belongs


def _largest(weight: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.bool_]:
    """The cells with the largest share of `weight` in both."""
    both = weight + other
    share = np.divide(weight, both, out=np.zeros_like(weight), where=both > 0)
    largest: NDArray[np.bool_] = share == share.max()
    return largest


def _order(features: NDArray[np.float32], seed: int) -> NDArray[np.uint32]:
    """[M]: numbers as good as random, each a function of the seed and its row."""
    factors = random_words(seed, 0, np.zeros(1, np.int64), features.shape[1])[0] | np.uint32(1)
    bits = features.view(np.uint32)
    numbers: NDArray[np.uint32] = np.einsum("mc,c->m", bits, factors)  # modulo 2^32
    return numbers ^ (numbers >> np.uint32(15))
