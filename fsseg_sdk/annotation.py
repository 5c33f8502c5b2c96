"""Ways to say where an object is, other than a mask: a box, or strokes of a pen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .strokes import draw_strokes

__all__ = ["Box", "Marked", "Scribble"]

Point = tuple[float, float]
Strokes = Sequence[Point] | Sequence[Sequence[Point]] | NDArray[Any]

MAX_POINTS = 10_000
_SMALLEST_BACKGROUND = 0.05  # of the picture


@dataclass(frozen=True, eq=False)
class Marked:
    """What an annotation says, bool [H, W] each.

    foreground: of the class; background: not of the class; possible: where the class may be
    (foreground included). Pixels in neither foreground nor background are left out of both.
    """

    foreground: NDArray[np.bool_]
    background: NDArray[np.bool_]
    possible: NDArray[np.bool_]


@dataclass(frozen=True)
class Box:
    """A box around the object, in pixels of the picture as shown (after the EXIF turn).

    left, top are the first column and row; right, bottom are exclusive, so Box(0, 0, W, H) is the
    whole picture. Fractions are allowed: a pixel is inside if its centre is. The object is what
    is inside, background what is outside; a box over the whole picture leaves no background.

    Raises InputError when inverted or empty, and, once its picture is known, when any part of it
    lies outside of that.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        for name in ("left", "top", "right", "bottom"):
            _finite(getattr(self, name), f"Box, {name}")
        if not (self.left < self.right and self.top < self.bottom):
            raise InputError(
                "Box",
                expected="left < right and top < bottom",
                got=str(self),
                remedy="Pass Box(left, top, right, bottom), not x, y, width, height.",
            )

    def mark(self, size: tuple[int, int], argument: str) -> Marked:
        """The pixels of a picture of `size` (H, W)."""
        height, width = size
        if self.left < 0 or self.top < 0 or self.right > width or self.bottom > height:
            raise InputError(
                f"{argument}, box",
                expected=f"a box within the picture, Box(0, 0, {width}, {height}) at most",
                got=str(self),
                remedy="Clip it to the picture; coordinates are those of the upright picture.",
            )
        inside = np.zeros(size, np.bool_)
        rows = slice(math.ceil(self.top - 0.5), math.ceil(self.bottom - 0.5))
        columns = slice(math.ceil(self.left - 0.5), math.ceil(self.right - 0.5))
        inside[rows, columns] = True
        if not inside.any():
            raise InputError(
                f"{argument}, box",
                expected="a box with at least one pixel's centre in it",
                got=str(self),
                remedy="Make the box larger.",
            )
        return Marked(inside, ~inside, inside)


@dataclass(frozen=True)
class Scribble:
    """Strokes on the object, and optionally on what it is not, in pixels of the picture as shown.

    strokes: one polyline of (x, y) points or several; a single point is a dot. (0, 0) is the
    centre of the top left pixel, x runs to the right, y down. width: of the pen in pixels; by
    default one per cent of the picture's shorter side, at least 3.
    background: strokes on what is not the object. Where both cross, the pixel counts for neither.

    Without background strokes, background is what lies outside the strokes' bounding box, enlarged
    on each side by half its longer side. Where that leaves less than 5 % of the picture, the
    enlargement is halved, halved again, then dropped; at last all that is off the strokes is
    background.
    """

    strokes: Strokes
    background: Strokes = ()
    width: float | None = None

    def __post_init__(self) -> None:
        strokes = _polylines(self.strokes, "Scribble, strokes")
        background = _polylines(self.background, "Scribble, background")
        if not strokes:
            raise InputError(
                "Scribble",
                expected="at least one stroke on the object",
                got="only background strokes" if background else "no strokes",
                remedy="Draw a stroke on the object.",
            )
        if self.width is not None:
            _finite(self.width, "Scribble, width")
            if not 1 <= self.width <= 10_000:
                raise InputError(
                    "Scribble, width",
                    expected="a pen of 1 to 10,000 pixels",
                    got=str(self.width),
                    remedy="Leave it out for a width that fits the picture.",
                )
        object.__setattr__(self, "strokes", strokes)
        object.__setattr__(self, "background", background)

    def mark(self, size: tuple[int, int], argument: str) -> Marked:
        """The pixels of a picture of `size` (H, W)."""
        width = max(3.0, 0.01 * min(size)) if self.width is None else float(self.width)
        strokes = _polylines(self.strokes, argument)
        background = _polylines(self.background, argument)
        for stroke in (*strokes, *background):
            _inside(stroke, size, f"{argument}, scribble")
        drawn = draw_strokes(strokes, width, size)
        if background:
            off = draw_strokes(background, width, size)
            near = _enlarged(drawn, 0.5)
            return Marked(self._left_of(drawn & ~off, argument), off & ~drawn, near & ~off)
        for share in (0.5, 0.25, 0.125, 0.0):
            near = _enlarged(drawn, share)
            if near.mean() <= 1 - _SMALLEST_BACKGROUND:
                return Marked(drawn, ~near, near)
        return Marked(drawn, ~drawn, np.ones(size, np.bool_))

    @staticmethod
    def _left_of(foreground: NDArray[np.bool_], argument: str) -> NDArray[np.bool_]:
        if not foreground.any():
            raise InputError(
                f"{argument}, scribble",
                expected="strokes on the object that background strokes leave visible",
                got="background strokes over all of them",
                remedy="Draw the background strokes beside the object.",
            )
        return foreground


def _enlarged(drawn: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    top, bottom, left, right = (int(i) for i in (rows[0], rows[-1], columns[0], columns[-1]))
    margin = math.ceil(share * max(bottom - top + 1, right - left + 1))
    near = np.zeros(drawn.shape, np.bool_)
    near[max(top - margin, 0) : bottom + margin + 1, max(left - margin, 0) : right + margin + 1] = (
        True
    )
    return near


def _polylines(strokes: object, argument: str) -> tuple[tuple[Point, ...], ...]:
    """One polyline or several, as tuples of (x, y)."""
    outer = _items(strokes, argument)
    if outer and len(first := _items(outer[0], argument)) and isinstance(first[0], Real):
        outer = [outer]  # the points of one polyline
    lines: list[tuple[Point, ...]] = []
    for number, line in enumerate(outer, 1):
        name = f"{argument} {number}"
        points = [_items(point, name) for point in _items(line, name)]
        if not points or any(len(point) != 2 for point in points):
            raise InputError(
                name,
                expected="a list of one or more (x, y) points",
                got="no points" if not points else "a point that is not a pair",
                remedy="Pass [(x1, y1), (x2, y2), ...] for each stroke.",
            )
        lines.append(tuple((_finite(x, name), _finite(y, name)) for x, y in points))
    if sum(len(line) for line in lines) > MAX_POINTS:
        raise InputError(
            argument,
            expected=f"at most {MAX_POINTS:,} points",
            got=f"{sum(len(line) for line in lines):,}",
            remedy="Leave out points of straight pieces, or pass a mask.",
        )
    return tuple(lines)


def _items(value: object, argument: str) -> list[object]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, dict)):
        return list(value)
    raise InputError(
        argument,
        expected="polylines of (x, y) points",
        got=type(value).__name__,
        remedy="Pass [(x1, y1), (x2, y2), ...], or a list of those.",
    )


def _finite(value: object, argument: str) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise InputError(
        argument,
        expected="a finite number of pixels",
        got=repr(value)[:60],
        remedy="Pass plain numbers.",
    )


def _inside(stroke: tuple[Point, ...], size: tuple[int, int], argument: str) -> None:
    height, width = size
    for x, y in stroke:
        if not (-0.5 <= x < width - 0.5 and -0.5 <= y < height - 0.5):
            raise InputError(
                argument,
                expected=f"points within the picture, (0, 0) to ({width - 1}, {height - 1})",
                got=f"({x:g}, {y:g})",
                remedy="Points are (x, y) of the upright picture: x to the right, y down.",
            )
