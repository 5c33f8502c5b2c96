"""Drawn scenes and random views: sizes, repeatability, and that the class is to be seen."""

from __future__ import annotations

import numpy as np
import pytest

from training.augment import AugmentSettings, jitter, random_view, shown, warp
from training.resize import fit_to
from training.scenes import LEAST_PIXELS, SHAPES, Family, draw_pair, random_surface, stamp

SIDE = 64


def generator(number: int) -> np.random.Generator:
    return np.random.default_rng(number)


def dotted() -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture of 50 x 80 with a small class at its border and ignored columns."""
    pixels = generator(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    mask = np.zeros((50, 80), np.uint8)
    mask[2:10, 2:10] = 3
    mask[:, 70:] = 255
    return pixels, mask


def test_a_pair_shows_its_class_twice() -> None:
    for number in range(120):
        support, query = draw_pair(generator(number), SIDE)
        for pixels, mask in (support, query):
            assert (pixels.shape, pixels.dtype) == ((SIDE, SIDE, 3), np.uint8)
            assert (mask.shape, mask.dtype) == ((SIDE, SIDE), np.uint8)
            assert mask.max() <= 4
            assert np.count_nonzero(mask == 1) >= LEAST_PIXELS


def test_a_pair_depends_on_its_generator_alone() -> None:
    first, again, other = (draw_pair(generator(n), SIDE) for n in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
    assert not np.array_equal(first[0][0], other[0][0])
    assert not np.array_equal(first[0][0], first[1][0])


@pytest.mark.parametrize("shape", SHAPES)
def test_marks_of_every_shape_leave_ground(shape: str) -> None:
    surface = random_surface(generator(0))
    family = Family(shape, surface, 1.0, size=0.2, aspect=1.5, lobes=5, count=2, shadow=False)
    marks = stamp(generator(1), family, 96)
    assert (marks.shape, marks.dtype) == ((96, 96), np.uint8)
    assert 0.002 < (marks > 127).mean() < 0.5


def test_a_view_shows_the_class_and_keeps_its_labels() -> None:
    pixels, mask = dotted()
    settings = AugmentSettings(crop=(0.3, 0.6), angle=45.0)
    for number in range(40):
        view, labels = random_view(generator(number), pixels, mask, settings)
        assert view.shape == (*labels.shape, 3)
        assert (view.dtype, labels.dtype) == (np.uint8, np.uint8)
        assert set(np.unique(labels)) <= {0, 3, 255}
        assert np.count_nonzero(shown(labels)) >= settings.least_pixels


def test_a_view_that_cannot_be_had_is_the_whole_picture() -> None:
    pixels, mask = dotted()
    settings = AugmentSettings(least_pixels=10_000, colour=0.0, grey=0.0, blur=0.0)
    view, labels = random_view(generator(0), pixels, mask, settings)
    assert np.array_equal(labels, mask)
    assert np.abs(view.astype(int) - pixels).max() <= 1


def test_a_view_depends_on_its_generator_alone() -> None:
    views = [random_view(generator(n), *dotted(), AugmentSettings()) for n in (4, 4, 5)]
    assert np.array_equal(views[0][0], views[1][0]) and np.array_equal(views[0][1], views[1][1])
    assert views[0][0].shape != views[2][0].shape or not np.array_equal(views[0][0], views[2][0])


def test_a_warp_moves_picture_and_mask_alike() -> None:
    """Where the mask marks the bright square, the picture is bright; outside is ignored."""
    mask = np.zeros((60, 90), np.uint8)
    mask[12:32, 24:54] = 1
    pixels = np.repeat(mask[..., None] * np.uint8(250), 3, axis=2)
    for number in range(10):
        settings = AugmentSettings(crop=(0.8, 0.8), angle=60.0)
        view, labels = warp(generator(number), pixels, mask, settings)
        known = labels != 255
        agree = (view[..., 0] > 125) == (labels == 1)
        assert agree[known].mean() > 0.97
        assert (labels == 1).any()


def test_colours_change_within_what_is_allowed() -> None:
    pixels = np.full((8, 8, 3), 100, np.uint8)
    still = AugmentSettings(colour=0.0, grey=0.0, blur=0.0)
    assert np.abs(jitter(generator(0), pixels, still).astype(int) - 100).max() <= 1
    grey = jitter(generator(0), dotted()[0], AugmentSettings(grey=1.0)).astype(int)
    assert np.ptp(grey, axis=2).max() <= 1
    changed = jitter(generator(0), pixels, AugmentSettings(colour=0.3, grey=0.0, blur=0.0))
    assert not np.array_equal(changed, pixels)


def test_resizing_keeps_labels() -> None:
    pixels, mask = dotted()
    small, labels = fit_to(pixels, mask, 48)
    assert (small.shape, labels.shape) == ((48, 48, 3), (48, 48))
    assert set(np.unique(labels)) == {0, 3, 255}
    assert abs(float(small.mean()) - float(pixels.mean())) < 2
