"""Overlays: regions in their colours, outlines that stand out, a legend that hides little."""

from __future__ import annotations

import numpy as np
import pytest

from fsseg_sdk.errors import InputError
from fsseg_sdk.image import read_image
from fsseg_sdk.overlay import Entry, draw_overlay
from fsseg_sdk.palette import palette
from tests.pictures import scene
from tests.test_result import SCENE, result

GREY = np.full((240, 320, 3), 128, np.uint8)
LABELS = np.zeros((240, 320), np.uint8)
LABELS[60:160, 60:160] = 1
LABELS[60:160, 200:260] = 2
ENTRIES = [Entry(1, "bolt", 0.97, True), Entry(2, "nut", 0.6, True)]


def test_the_palette_is_fixed_and_distinct() -> None:
    colours = palette()
    assert colours.shape == (256, 3)
    assert colours.dtype == np.uint8
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[1].tolist() == [0xD5, 0x5E, 0x00]
    assert len({tuple(row) for row in colours.tolist()}) >= 250
    first = colours[1:22].astype(int)
    apart = np.abs(first[:, None] - first[None]).sum(axis=2) + np.eye(21, dtype=int) * 999
    assert apart.min() > 40


def test_regions_lines_and_surroundings() -> None:
    drawn = draw_overlay(GREY, LABELS, ENTRIES, legend=False)
    colours = palette().astype(int)
    for label, (row, column) in {1: (110, 110), 2: (110, 230)}.items():
        expected = GREY[row, column] * 0.55 + colours[label] * 0.45
        assert np.abs(drawn[row, column] - expected).max() <= 2
    assert drawn[60, 110].tolist() == colours[1].tolist()  # the line, inside
    assert drawn[61, 110].tolist() == colours[1].tolist()
    assert drawn[63, 110].tolist() != colours[1].tolist()
    assert drawn[59, 110].tolist() == [255, 255, 255]  # the light one, outside
    assert drawn[200, 20].tolist() == [102, 102, 102]  # dimmed


def test_lines_grow_with_the_picture() -> None:
    def thickness(scale: int) -> int:
        labels = np.kron(LABELS, np.ones((scale, scale), np.uint8))
        grey = np.full((*labels.shape, 3), 128, np.uint8)
        drawn = draw_overlay(grey, labels, [], legend=False)
        column = drawn[: 110 * scale, 110 * scale]
        return int((column == palette()[1]).all(axis=1).sum())

    assert [thickness(scale) for scale in (1, 3, 6)] == [2, 3, 5]


def test_nothing_found_leaves_the_picture() -> None:
    entries = [Entry(1, "bolt", 0.1, False)]
    drawn = draw_overlay(GREY, np.zeros_like(LABELS), entries)
    np.testing.assert_array_equal(drawn[120:], GREY[120:])
    assert (drawn[:60] != GREY[:60]).any()  # the legend says so
    plain = draw_overlay(GREY, np.zeros_like(LABELS), entries, legend=False)
    np.testing.assert_array_equal(plain, GREY)
    assert not np.shares_memory(plain, GREY)


def test_the_legend_goes_to_the_emptiest_corner() -> None:
    labels = np.ones((240, 320), np.uint8)
    for rows, columns in [(slice(0, 90), slice(0, 160)), (slice(150, 240), slice(160, 320))]:
        free = labels.copy()
        free[rows, columns] = 0
        with_it = draw_overlay(GREY, free, ENTRIES)
        without = draw_overlay(GREY, free, ENTRIES, legend=False)
        changed = (with_it != without).any(axis=2)
        assert changed.any()
        changed[rows, columns] = False
        assert not changed.any()


def test_found_classes_come_first_and_others_are_grey() -> None:
    entries = [Entry(1, "absent", 0.1, False), Entry(2, "nut", 0.6, True)]
    labels = np.zeros_like(LABELS)
    labels[200:230, 280:310] = 2
    found_last = draw_overlay(GREY, labels, entries)
    np.testing.assert_array_equal(draw_overlay(GREY, labels, entries[::-1]), found_last)
    legend = found_last[:100, :200].astype(int)
    swatch = np.argwhere((legend == palette()[2]).all(axis=2))
    assert len(swatch) > 50
    assert not (legend == palette()[1]).all(axis=2).any()
    ink = legend[: swatch[:, 0].max() + 1].max(), legend[swatch[:, 0].max() + 3 :, :100]
    assert ink[0] == 255
    below = ink[1][(np.ptp(ink[1], axis=2) == 0) & (ink[1].max(axis=2) > 102)]
    assert below.max() == 165  # grey ink, no white


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (300, 2), (20, 20), (60, 90), (240, 320)])
@pytest.mark.parametrize("count", [1, 3, 254])
def test_any_size_any_number_of_classes(size: tuple[int, int], count: int) -> None:
    labels = np.zeros(size, np.uint8)
    labels[: size[0] // 2 + 1] = count
    entries = [Entry(i, f"class {i} " + "w" * 80, 0.5, i % 2 == 0) for i in range(1, count + 1)]
    picture = np.full((*size, 3), 77, np.uint8)
    before = picture.copy()
    drawn = draw_overlay(picture, labels, entries)
    assert drawn.shape == (*size, 3)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(picture, before)


def test_overlay_of_a_result() -> None:
    made = result()
    drawn = made.overlay()
    assert drawn.shape == (60, 80, 3)
    assert (drawn != SCENE.pixels).any()
    other = made.overlay(255 - SCENE.pixels)
    assert (other != drawn).any()
    np.testing.assert_array_equal(made.overlay(read_image(SCENE.pixels)), drawn)


def test_absent_classes_are_not_drawn() -> None:
    made = result({"bolt": 0.1, "nut": 0.2})
    np.testing.assert_array_equal(made.overlay(legend=False), SCENE.pixels)


def test_overlays_without_a_fitting_picture() -> None:
    with pytest.raises(InputError, match="none: this result"):
        result(picture=None).overlay()
    with pytest.raises(InputError, match="80 x 60 pixels, as the query, got 40 x 30"):
        result().overlay(scene(30, 40).pixels)
    with pytest.raises(InputError, match="overlay, picture"):
        result().overlay(b"text")
