"""Pen strokes as pixels: which pixel centres lie within half a width of a polyline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Stroke", "draw_strokes"]

Stroke = Sequence[tuple[float, float]]


def draw_strokes(
    strokes: Sequence[Stroke], width: float, size: tuple[int, int]
) -> NDArray[np.bool_]:
    """bool [H, W]: pixels with a centre at most width / 2 from a stroke, and those at its points.

    strokes: polylines of (x, y) in pixel indices, (0, 0) being the centre of the top left pixel;
    one point is a dot. Points are inside the picture; what the pen covers beyond it is cut off.
    """
    height, columns = size
    # A pen drawn along a segment covers one run of pixels in every row: mark where runs begin and
    # end, then add up along the rows.
    marks = np.zeros((height, columns + 1), np.int32)
    radius = width / 2.0
    for stroke in strokes:
        ends = list(stroke[1:]) or [stroke[0]]
        for begin, end in zip([stroke[0], *stroke[1:]], ends, strict=False):
            _mark_segment(marks, begin, end, radius)
        for x, y in stroke:
            row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
            marks[row, column] += 1
            marks[row, column + 1] -= 1
    covered: NDArray[np.bool_] = np.cumsum(marks, axis=1, out=marks)[:, :-1] > 0
    return covered


def _mark_segment(
    marks: NDArray[np.int32],
    begin: tuple[float, float],
    end: tuple[float, float],
    radius: float,
) -> None:
    height, columns = marks.shape[0], marks.shape[1] - 1
    top = max(int(np.ceil(min(begin[1], end[1]) - radius)), 0)
    bottom = min(int(np.floor(max(begin[1], end[1]) + radius)), height - 1)
    rows = np.arange(top, bottom + 1, dtype=np.float64)
    left = np.full(rows.shape, np.inf)
    right = np.full(rows.shape, -np.inf)
    for x, y in (begin, end):  # the two round caps
        squared = radius * radius - (rows - y) ** 2
        half = np.sqrt(np.maximum(squared, 0.0))
        left = np.where(squared >= 0, np.minimum(left, x - half), left)
        right = np.where(squared >= 0, np.maximum(right, x + half), right)
    for (x0, y0), (x1, y1) in _sides(begin, end, radius):
        if y0 != y1:  # level sides end on the caps
            share = (rows - y0) / (y1 - y0)
            crossing = x0 + share * (x1 - x0)
            inside = (share >= 0) & (share <= 1)
            left = np.where(inside, np.minimum(left, crossing), left)
            right = np.where(inside, np.maximum(right, crossing), right)
    first = np.clip(np.ceil(np.where(np.isfinite(left), left, 0.0)), 0, columns).astype(np.intp)
    last = np.clip(np.floor(np.where(np.isfinite(right), right, -1.0)), -1, columns - 1)
    after = last.astype(np.intp) + 1
    some = np.flatnonzero(after > first)
    marks[top + some, first[some]] += 1
    marks[top + some, after[some]] -= 1


def _sides(
    begin: tuple[float, float], end: tuple[float, float], radius: float
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The two long sides of the segment's rectangle."""
    dx, dy = end[0] - begin[0], end[1] - begin[1]
    length = float(np.hypot(dx, dy))
    if length == 0.0:
        return []
    nx, ny = -dy / length * radius, dx / length * radius
    return [
        ((begin[0] + s * nx, begin[1] + s * ny), (end[0] + s * nx, end[1] + s * ny))
        for s in (1.0, -1.0)
    ]
