"""Boxes and scribbles: which pixels they mark, and what is wrong with the ones that are wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fsseg_sdk import Box, Scribble
from fsseg_sdk.annotation import MAX_POINTS
from fsseg_sdk.errors import InputError
from fsseg_sdk.strokes import draw_strokes

NAN, INF = float("nan"), float("inf")
COORDINATES = st.floats(-2.0, 30.0, allow_nan=False)
INTERVALS = st.lists(COORDINATES, min_size=2, max_size=2, unique=True).map(sorted)


# --- boxes --------------------------------------------------------------------------------------


def test_a_box_marks_its_inside() -> None:
    marked = Box(2, 1, 5, 4).mark((6, 8), "shot")
    expected = np.zeros((6, 8), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(marked.foreground, expected)
    np.testing.assert_array_equal(marked.background, ~expected)
    np.testing.assert_array_equal(marked.possible, expected)


def test_a_box_over_the_whole_picture_has_no_background() -> None:
    marked = Box(0, 0, 8, 6).mark((6, 8), "shot")
    assert marked.foreground.all()
    assert not marked.background.any()


@given(INTERVALS, INTERVALS, st.integers(1, 28), st.integers(1, 28))
def test_boxes_are_marked_by_pixel_centres_or_refused(
    across: list[float], down: list[float], height: int, width: int
) -> None:
    (left, right), (top, bottom) = across, down
    box = Box(left, top, right, bottom)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    inside = (columns >= left) & (columns < right) & (rows >= top) & (rows < bottom)
    outside = left < 0 or top < 0 or right > width or bottom > height
    if outside or not inside.any():
        with pytest.raises(InputError, match="class 'a', shot 1, box"):
            box.mark((height, width), "class 'a', shot 1")
        return
    np.testing.assert_array_equal(box.mark((height, width), "shot").foreground, inside)


@pytest.mark.parametrize(
    "box, word",
    [
        ((5, 1, 2, 4), "left < right"),
        ((2, 4, 5, 1), "top < bottom"),
        ((2, 2, 2, 4), "left < right"),
        ((NAN, 1, 2, 3), "Box, left"),
        ((0, 1, INF, 3), "Box, right"),
        ((0, 1, 2, "3"), "Box, bottom"),
        ((0, True, 2, 3), "Box, top"),
        ((0, None, 2, 3), "Box, top"),
    ],
)
def test_boxes_that_cannot_be(box: tuple[Any, ...], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Box(*box)


@pytest.mark.parametrize(
    "box",
    [Box(-1, 0, 4, 4), Box(0, -0.5, 4, 4), Box(0, 0, 9, 4), Box(0, 0, 8, 6.5), Box(9, 7, 12, 9)],
)
def test_boxes_outside_of_the_picture(box: Box) -> None:
    with pytest.raises(InputError, match=r"Box\(0, 0, 8, 6\) at most"):
        box.mark((6, 8), "shot")


def test_a_box_between_pixel_centres_is_empty() -> None:
    with pytest.raises(InputError, match="at least one pixel"):
        Box(2.6, 1, 3.4, 4).mark((6, 8), "shot")


def test_boxes_take_numpy_numbers_and_are_values() -> None:
    box = Box(np.int64(1), np.float32(1), np.uint8(4), np.float64(3))
    assert box == Box(1, 1, 4, 3)
    assert box.mark((6, 8), "shot").foreground.sum() == 6


# --- strokes ------------------------------------------------------------------------------------


def _distance(stroke: list[tuple[float, float]], height: int, width: int) -> np.ndarray[Any, Any]:
    """Of every pixel centre from the polyline, the slow way."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    best = np.full((height, width), np.inf)
    for (x0, y0), (x1, y1) in zip(stroke, stroke[1:] or stroke, strict=False):
        dx, dy = x1 - x0, y1 - y0
        length = dx * dx + dy * dy
        share = ((columns - x0) * dx + (rows - y0) * dy) / length if length else 0.0
        share = np.clip(share, 0, 1)
        best = np.minimum(best, np.hypot(columns - x0 - share * dx, rows - y0 - share * dy))
    return best


@given(
    st.lists(st.tuples(st.floats(0, 29), st.floats(0, 19)), min_size=1, max_size=4),
    st.floats(1.0, 15.0),
)
def test_strokes_are_pixels_near_the_polyline(
    stroke: list[tuple[float, float]], width: float
) -> None:
    drawn = draw_strokes([stroke], width, (20, 30))
    distance = _distance(stroke, 20, 30)
    assert drawn[distance < width / 2 - 1e-6].all()
    for x, y in stroke:  # at least the pixels below the points
        row, column = int(np.floor(y + 0.5)), int(np.floor(x + 0.5))
        assert drawn[row, column]
        distance[row, column] = 0.0
    assert not drawn[distance > width / 2 + 1e-6].any()


def test_strokes_run_over_the_edge() -> None:
    drawn = draw_strokes([[(0, 0)], [(9, 5), (9, 0)]], 6.0, (6, 10))
    assert drawn[0, 0]
    assert drawn[2, 2]
    assert drawn[:, 9].all()
    assert not drawn[5, 0]


# --- scribbles ----------------------------------------------------------------------------------

LINE = [(20, 20), (30, 20)]


@pytest.mark.parametrize(
    "strokes", [LINE, [LINE], np.array(LINE), [np.array(LINE)], (tuple(LINE),), iter([LINE])]
)
def test_one_polyline_or_several(strokes: Any) -> None:
    assert Scribble(strokes) == Scribble([LINE])
    assert Scribble(strokes=LINE).strokes == (((20.0, 20.0), (30.0, 20.0)),)


def test_default_width_is_a_share_of_the_picture() -> None:
    small = Scribble(LINE).mark((60, 80), "shot").foreground
    assert small.any(axis=1).sum() == 3
    large = Scribble(LINE).mark((1100, 2000), "shot").foreground
    assert large.any(axis=1).sum() == 11


def test_background_is_outside_the_enlarged_box() -> None:
    marked = Scribble(LINE, width=2).mark((60, 80), "shot")
    rows, columns = np.nonzero(marked.possible)
    # the strokes span rows 19..21 and columns 19..31; half of the longer side, 13, is 6.5 -> 7
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 28, 12, 38)
    np.testing.assert_array_equal(marked.background, ~marked.possible)
    assert not (marked.foreground & marked.background).any()


def test_large_scribbles_leave_some_background() -> None:
    across = Scribble([(2, 2), (77, 57)], width=3)
    marked = across.mark((60, 80), "shot")
    assert marked.background.mean() >= 0.05
    halved = Scribble([(20, 15), (60, 45)], width=1).mark((60, 80), "shot")
    rows, columns = np.nonzero(halved.possible)
    # half of the longer side, 41, would cover everything; a quarter is 10.25 -> 11
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 56, 9, 71)
    corner_to_corner = Scribble([(0, 0), (79, 59)], width=3)
    marked = corner_to_corner.mark((60, 80), "shot")
    np.testing.assert_array_equal(marked.background, ~marked.foreground)
    assert marked.possible.all()


def test_background_strokes() -> None:
    scribble = Scribble(LINE, background=[(20, 50), (60, 50)], width=3)
    marked = scribble.mark((60, 80), "shot")
    assert marked.background[50, 40]
    assert not marked.background[5, 5]
    crossing = Scribble(LINE, background=[(25, 5), (25, 40)], width=3)
    marked = crossing.mark((60, 80), "shot")
    assert not marked.foreground[20, 25]
    assert not marked.background[20, 25]
    assert marked.foreground[20, 21]
    assert not marked.possible[30, 25]


@pytest.mark.parametrize(
    "strokes, options, word",
    [
        ([], {}, "no strokes"),
        ([], {"background": LINE}, "only background"),
        ([[]], {}, "no points"),
        ([(1, 2, 3)], {}, "not a pair"),
        ([[(1, 2), (3,)]], {}, "not a pair"),
        ([(1, NAN)], {}, "finite"),
        ([("a", "b")], {}, "polylines|finite"),
        (5, {}, "got int"),
        ("strokes", {}, "got str"),
        (None, {}, "NoneType"),
        (LINE, {"width": 0}, "width"),
        (LINE, {"width": NAN}, "width"),
        (LINE, {"background": 3}, "background"),
        ([(1, 1)] * (MAX_POINTS + 1), {}, "at most 10,000 points"),
    ],
)
def test_scribbles_that_cannot_be(strokes: Any, options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        Scribble(strokes, **options)


@pytest.mark.parametrize("point", [(-1, 5), (5, -0.6), (79.5, 5), (5, 60), (1e30, 5)])
def test_points_outside_of_the_picture(point: tuple[float, float]) -> None:
    with pytest.raises(InputError, match=r"class 'a', shot 1, scribble.*\(79, 59\)"):
        Scribble([(5, 5), point]).mark((60, 80), "class 'a', shot 1")


def test_background_over_the_whole_object() -> None:
    scribble = Scribble(LINE, background=LINE)
    with pytest.raises(InputError, match="background strokes over all"):
        scribble.mark((60, 80), "shot")


@given(st.lists(st.tuples(COORDINATES, COORDINATES), min_size=1, max_size=5))
def test_scribbles_are_marked_or_refused(points: list[tuple[float, float]]) -> None:
    scribble = Scribble([points])
    try:
        marked = scribble.mark((20, 30), "shot")
    except InputError:
        assert any(not (-0.5 <= x < 29.5 and -0.5 <= y < 19.5) for x, y in points)
        return
    assert marked.foreground.any()
    assert marked.background.any() or marked.foreground.all()
    assert not (marked.foreground & marked.background).any()
    assert marked.possible[marked.foreground].all()
