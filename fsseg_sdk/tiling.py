"""Pictures much larger than the encoder's input: overlapping windows, one map of scores.

The picture gets a grid of its own, whose cells are as large in its pixels as the encoder's cells
are in a window. Every window covers whole cells of it, so that the scores of windows can be
added up cell by cell, weighted towards each window's middle, and upsampled once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError

__all__ = ["Tile", "Tiling", "Window", "plan_tiles", "stitch"]

Tile = bool | int | Literal["auto"] | None

_SMALLEST = 32
_MOST_WINDOWS = 4096
_AUTO_WINDOWS = 16


@dataclass(frozen=True)
class Window:
    """Pixels [top:bottom, left:right] of the picture; its first cell is (row, column)."""

    top: int
    bottom: int
    left: int
    right: int
    row: int
    column: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Tiling:
    """grid: cells of the whole picture; window_grid: cells of one window."""

    grid: tuple[int, int]
    window_grid: tuple[int, int]
    overlap: tuple[int, int]
    windows: tuple[Window, ...]


def plan_tiles(
    image_size: tuple[int, int], input_size: tuple[int, int], grid: tuple[int, int], tile: Tile
) -> Tiling | None:
    """Windows for a picture of `image_size`, or None where one window would hold all of it.

    tile: None or False: never. True: windows of the input's own size, that is, the picture at
    native resolution. A number: windows of that many pixels on the longer side. "auto": native
    resolution for pictures more than twice as large as the input on a side, coarser where that
    would take more than 16 windows.
    """
    if tile is None or tile is False:
        return None
    if tile == "auto":
        return _auto(image_size, input_size, grid)
    if tile is True:
        return _plan(image_size, input_size, grid)
    if not isinstance(tile, int) or tile < _SMALLEST:
        raise InputError(
            "tile",
            expected=f'True, False, "auto" or a window side of {_SMALLEST} pixels or more',
            got=repr(tile),
            remedy='Use tile="auto", or the side of a window in pixels of the picture.',
        )
    longer = max(input_size)
    window = tuple(max(1, round(side * tile / longer)) for side in input_size)
    return _plan(image_size, (window[0], window[1]), grid)


def _auto(
    image_size: tuple[int, int], input_size: tuple[int, int], grid: tuple[int, int]
) -> Tiling | None:
    if all(side <= 2 * size for side, size in zip(image_size, input_size, strict=True)):
        return None
    zoom = 1.0
    while True:
        window = (round(input_size[0] * zoom), round(input_size[1] * zoom))
        plan = _plan(image_size, window, grid, limit=_AUTO_WINDOWS)
        if plan is None or plan.windows:
            return plan
        zoom *= 1.25


def _plan(
    image_size: tuple[int, int],
    window: tuple[int, int],
    grid: tuple[int, int],
    limit: int | None = None,
) -> Tiling | None:
    """With `limit`, a plan without windows says that there would be more than that."""
    if all(side <= size for side, size in zip(image_size, window, strict=True)):
        return None
    rows = _axis(image_size[0], window[0], grid[0])
    columns = _axis(image_size[1], window[1], grid[1])
    cells, overlap = (rows[0], columns[0]), (rows[1], columns[1])
    count = len(rows[2]) * len(columns[2])
    if limit is not None and count > limit:
        return Tiling(cells, grid, overlap, ())
    if count > _MOST_WINDOWS:
        raise InputError(
            "tile",
            expected=f"windows that cover the picture in {_MOST_WINDOWS} or fewer",
            got=f"{count} windows of {window[0]}x{window[1]} pixels",
            remedy="Use larger windows, or a smaller picture.",
        )
    return Tiling(
        cells,
        grid,
        overlap,
        tuple(
            Window(
                *_pixels(row, grid[0], cells[0], image_size[0]),
                *_pixels(column, grid[1], cells[1], image_size[1]),
                row,
                column,
            )
            for row in rows[2]
            for column in columns[2]
        ),
    )


def _axis(side: int, window: int, cells: int) -> tuple[int, int, list[int]]:
    """Cells of the whole picture along an axis, cells of overlap, first cell of each window."""
    overlap = max(1, cells // 4) if cells > 1 else 0
    if side <= window:
        return cells, overlap, [0]
    total = max(cells + 1, round(side * cells / window))
    count = -(-(total - overlap) // (cells - overlap))
    return total, overlap, [round(i * (total - cells) / (count - 1)) for i in range(count)]


def _pixels(first: int, cells: int, total: int, side: int) -> tuple[int, int]:
    begin = round(first * side / total)
    return begin, max(round((first + cells) * side / total), begin + 1)


def stitch(tiling: Tiling, logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """[P, *grid] from one [P, *window_grid] per window, in the order of `tiling.windows`."""
    rows, columns = (_ramp(tiling.window_grid[axis], tiling.overlap[axis]) for axis in (0, 1))
    weight = np.outer(rows, columns)
    planes = len(logits[0])
    total = np.zeros((planes, *tiling.grid), np.float32)
    mass = np.zeros(tiling.grid, np.float32)
    height, width = tiling.window_grid
    for window, scores in zip(tiling.windows, logits, strict=True):
        place = np.s_[window.row : window.row + height, window.column : window.column + width]
        total[(slice(None), *place)] += scores * weight
        mass[place] += weight
    return total / mass


def _ramp(cells: int, overlap: int) -> NDArray[np.float32]:
    """[cells]: rises over the overlap, so that a window's border counts least."""
    distance = np.minimum(np.arange(cells) + 0.5, cells - np.arange(cells) - 0.5)
    ramp: NDArray[np.float32] = np.minimum(distance / max(overlap, 1), 1.0).astype(np.float32)
    return ramp
