"""What must not change, or must change along, when the question is put differently."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fsseg_sdk import Result, Segmenter
from tests import opened, tiny

SCENES = [opened.query(seed) for seed in range(3)]
NAMES = list(SCENES[0].masks)
QUERY = opened.query(40).pixels
TOLERANCE = 1e-3  # of logits at scale 20


@pytest.fixture(scope="module", params=["squash", "fit"])
def segmenter(request: pytest.FixtureRequest) -> Segmenter:
    return opened.tiny_segmenter(request.param)


def support(*scenes: Any, names: list[str] | None = None) -> dict[str, Any]:
    return {name: [(s.pixels, s.masks[name]) for s in scenes or SCENES] for name in names or NAMES}


def close(first: Result, second: Result, logits: np.ndarray, labels: np.ndarray) -> None:
    """Equal logits; labels may differ only where two scores are as good as equal."""
    assert np.abs(first.logits - logits).max() <= TOLERANCE
    differ = first.labels != labels
    if differ.any():
        best = np.sort(first.scores[:, differ], axis=0)
        assert (best[-1] - best[-2] <= 2 * TOLERANCE).all()
    assert first.present == pytest.approx(dict(second.present), abs=1e-3)


def test_shots_in_another_order(segmenter: Segmenter) -> None:
    expected = segmenter.prepare(support()).segment(QUERY)
    result = segmenter.prepare(support(SCENES[2], SCENES[0], SCENES[1])).segment(QUERY)
    close(result, expected, expected.logits, expected.labels)


def test_every_shot_twice(segmenter: Segmenter) -> None:
    expected = segmenter.prepare(support()).segment(QUERY)
    result = segmenter.prepare(support(*SCENES, *SCENES)).segment(QUERY)
    close(result, expected, expected.logits, expected.labels)


def test_classes_in_another_order(segmenter: Segmenter) -> None:
    expected = segmenter.prepare(support()).segment(QUERY)
    names = [NAMES[2], NAMES[0], NAMES[1]]
    result = segmenter.prepare(support(names=names)).segment(QUERY)
    order = [0, *(1 + NAMES.index(name) for name in names)]
    renamed = np.argsort(order)[expected.labels]
    close(result, expected, expected.logits[order], renamed)
    assert result.classes == tuple(names)


@pytest.mark.parametrize("axis", [0, 1])
def test_mirrored_pictures(axis: int) -> None:
    """With "fit", cells beyond the picture stay where they are, so only "squash" mirrors."""
    segmenter = opened.tiny_segmenter("squash")
    expected = segmenter.prepare(support()).segment(QUERY)

    def mirror(array: np.ndarray) -> np.ndarray:
        return np.flip(array, axis)

    mirrored = {name: [(mirror(s.pixels), mirror(s.masks[name])) for s in SCENES] for name in NAMES}
    result = segmenter.prepare(mirrored).segment(mirror(QUERY))
    logits = np.flip(expected.logits, axis + 1)
    close(result, expected, logits, mirror(expected.labels))


def test_a_support_finds_itself(segmenter: Segmenter) -> None:
    image, mask = tiny.tiny_scene((96, 96), (24, 36, 72, 84))  # whole cells of the grid
    assert opened.iou(segmenter.segment(image, mask, image).mask, mask) >= 0.85


def test_pixels_twice_as_large(segmenter: Segmenter) -> None:
    """The same picture with each pixel doubled has the same answer, but for filtering at edges."""
    task = segmenter.prepare(support())
    expected = task.segment(QUERY)
    doubled = QUERY.repeat(2, axis=0).repeat(2, axis=1)
    labels = task.segment(doubled).labels[::2, ::2]
    assert (labels == expected.labels).mean() >= 0.97


def test_a_full_mask_has_no_background(segmenter: Segmenter) -> None:
    """The documented rule: everything that is at all like the class belongs to it."""
    whole = np.ones(QUERY.shape[:2], bool)
    result = segmenter.segment(QUERY, whole, QUERY)
    assert np.isfinite(result.scores).all()
    assert result.mask.mean() >= 0.9


def test_a_mask_of_one_pixel(segmenter: Segmenter) -> None:
    point = np.zeros(QUERY.shape[:2], bool)
    point[30, 90] = True
    result = segmenter.segment(QUERY, point, QUERY)
    assert np.isfinite(result.scores).all()
    assert result.labels[30, 90] == 1


def test_an_object_below_the_grid_in_every_position(segmenter: Segmenter) -> None:
    """Masks are never thinned out: two pixels of a grid cell of 16 x 12 leave a trace anywhere."""
    for offset in range(0, 24, 5):
        mask = np.zeros(QUERY.shape[:2], np.uint8)
        mask[offset : offset + 2, offset : offset + 2] = 1
        task = segmenter.prepare({"x": (QUERY, mask)})
        assert np.linalg.norm(task.state.arrays["foreground"][0]) > 0.1
