"""Boxes and scribbles from masks: of which object, where, and the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage.measure import label

from fsseg_sdk import Box, Scribble
from tests.training.folders import write_voc
from training.annotations import (
    KINDS,
    SMALLEST,
    annotate,
    as_mask,
    bounds,
    components,
    largest_region,
    longest_path,
    make,
    name_of,
    seed_of,
)
from training.datasets import open_dataset

masks = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 24), st.integers(1, 24)),
    elements=st.sampled_from([0, 0, 1, 1, 255]),
).filter(lambda mask: bool((mask == 1).any()))


def two_regions() -> np.ndarray:
    """A large corner, a small speck, and ignored pixels."""
    mask = np.zeros((40, 60), np.uint8)
    mask[5:9, 3:6] = 1
    mask[10:14, 10:50] = 1
    mask[14:34, 46:50] = 1
    mask[0:30, 55:60] = 255
    return mask


def inside(box: Box, shape: tuple[int, ...]) -> np.ndarray:
    region = np.zeros(shape, np.bool_)
    region[int(box.top) : int(box.bottom), int(box.left) : int(box.right)] = True
    return region


@settings(max_examples=60, deadline=None)
@given(mask=masks, kind=st.sampled_from([k for k in KINDS if k.startswith("box")]))
def test_a_box_holds_a_whole_component_tightly(mask: np.ndarray, kind: str) -> None:
    box = make(kind, mask, "seed")
    assert isinstance(box, Box)
    regions, count = label(mask == 1, connectivity=2, return_num=True)
    assert box in [bounds(regions == number) for number in range(1, count + 1)]


@settings(max_examples=60, deadline=None)
@given(mask=masks, seed=st.text(max_size=3))
def test_a_scribble_lies_on_the_class(mask: np.ndarray, seed: str) -> None:
    scribble = make("scribble", mask, seed)
    assert isinstance(scribble, Scribble)
    assert scribble.background == ()
    for x, y in scribble.strokes[0]:
        assert mask[int(y), int(x)] == 1
    assert make("scribble", mask, seed) == scribble


@settings(max_examples=60, deadline=None)
@given(mask=masks)
def test_components_of_one_per_cent_of_the_picture_or_the_largest(mask: np.ndarray) -> None:
    found = components(mask)
    regions, count = label(mask == 1, connectivity=2, return_num=True)
    sizes = sorted(int((regions == n).sum()) for n in range(1, count + 1))
    large = [size for size in sizes if size >= SMALLEST * mask.size]
    assert sorted(int(region.sum()) for region in found) == (large or sizes[-1:])


def test_specks_count_where_there_is_nothing_else() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[10, 10:15] = 1
    mask[50, 50:99] = 1
    assert [int(region.sum()) for region in components(mask)] == [49]
    mask[70:80, 70:80] = 1  # just 1 %
    assert [int(region.sum()) for region in components(mask)] == [100]
    mask[85:96, 70:81] = 1
    assert [int(region.sum()) for region in components(mask)] == [100, 121]


def test_ignored_pixels_are_of_no_object() -> None:
    assert [int(region.sum()) for region in components(two_regions())] == [240]
    assert make("box-component", two_regions(), "") == Box(10, 10, 50, 34)


def test_instances_are_boxed_where_they_are_known() -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 5:50] = 1  # two that touch: one component
    left, right = mask == 1, mask == 1
    left[:, 20:], right[:, :20] = False, False
    instances = [left, right]
    assert make("box-largest", mask, "", instances) == Box(20, 10, 50, 20)
    drawn = {make("box-random", mask, str(n), instances) for n in range(20)}  # type: ignore[arg-type]
    assert drawn == {Box(5, 10, 20, 20), Box(20, 10, 50, 20)}
    assert make("box-random", mask, "7", instances) == make("box-random", mask, "7", instances)
    whole = Box(5, 10, 50, 20)
    assert make("box-component", mask, "", instances) == whole
    assert make("box-component-random", mask, "", instances) == whole
    assert make("box-largest", mask, "") == whole
    with pytest.raises(ValueError, match="instances: expected one with a pixel"):
        make("box-largest", mask, "", [])


@pytest.mark.parametrize("kind", KINDS)
def test_tables_do_not_call_a_component_an_instance(kind: str) -> None:
    assert name_of(kind, True) == kind
    of_objects = kind.startswith("box")
    assert ("component" in name_of(kind, False)) == of_objects
    assert name_of(kind, False).endswith("random") == kind.endswith("random")


def test_a_scribble_follows_the_largest_region() -> None:
    mask = two_regions()
    scribble = make("scribble", mask, seed_of("squares/1", 1))
    assert isinstance(scribble, Scribble)
    stroke = np.array(scribble.strokes[0])
    region = largest_region(mask)
    assert all(region[int(y), int(x)] for x, y in stroke)
    length = np.hypot(*np.diff(stroke, axis=0).T).sum()
    assert 30 < length < 50  # 70 % of some 55 pixels around the corner
    others = [make("scribble", mask, seed_of("squares/1", k)) for k in range(2, 6)]
    assert any(other != scribble for other in others)


def test_a_pen_dilates_the_scribble() -> None:
    mask = two_regions()
    thin, thick = (as_mask(make("scribble", mask, "", width=w), mask.shape) for w in (1.0, 5.0))
    assert 2 * (thin == 1).sum() < (thick == 1).sum()
    assert (thick == 1)[thin == 1].all()


def test_the_longest_path_runs_from_end_to_end_wherever_it_starts() -> None:
    skeleton = np.zeros((12, 20), np.bool_)
    skeleton[5, 2:18] = True
    skeleton[2:5, 9] = True  # a short branch
    for start in range(int(skeleton.sum())):
        path = longest_path(skeleton, start)
        assert sorted((path[0], path[-1])) == [(5, 2), (5, 17)]
        assert len(path) == 16


@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_tiny_square_is_a_dot(side: int) -> None:
    mask = np.zeros((48, 64), np.uint8)
    mask[20 : 20 + side, 30 : 30 + side] = 1
    scribble = make("scribble", mask, "")
    assert isinstance(scribble, Scribble)
    ((x, y),) = scribble.strokes[0]
    assert mask[int(y), int(x)] == 1
    assert make("box-component", mask, "") == Box(30, 20, 30 + side, 20 + side)


def test_masks_of_annotations() -> None:
    mask = two_regions()
    assert as_mask(make("dense", mask, ""), mask.shape) is mask
    box = Box(10, 10, 50, 34)
    drawn = as_mask(box, mask.shape)
    assert np.array_equal(drawn == 1, inside(box, mask.shape))
    assert set(np.unique(drawn)) == {0, 1}
    other = Box(40, 20, 60, 40)
    drawn = as_mask(box, mask.shape, [other])
    assert np.array_equal(drawn == 1, inside(box, mask.shape))
    neither = inside(other, mask.shape) & ~inside(box, mask.shape)
    assert np.array_equal(drawn == 255, neither)


@pytest.mark.parametrize(
    ("kind", "value", "text"), [("mask", 1, "kind: expected one of dense"), ("dense", 0, "mask")]
)
def test_what_cannot_be_made_is_refused(kind: str, value: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make(kind, np.full((4, 4), value, np.uint8), "")


def test_a_sample_is_annotated_with_its_own_objects(tmp_path: Path) -> None:
    folder = write_voc(
        tmp_path, {"2007_000001": [(8, 2, 6), (8, 8, 10)]}, {"2007_000002": [(8, 2, 6)]}
    )
    sample = open_dataset(folder).samples[0]
    assert annotate("box-largest", sample, 8) == Box(8, 8, 18, 18)
    assert annotate("box-component", sample, 8) == Box(2, 8, 18, 18)
    dense = annotate("dense", sample, 8)
    assert isinstance(dense, np.ndarray)
    assert np.array_equal(dense == 1, sample.read()[1] == 8)
    assert np.array_equal(dense == 255, sample.read()[1] == 255)
    boxes = {annotate("box-random", sample, 8, seed) for seed in range(20)}  # type: ignore[arg-type]
    assert len(boxes) == 2
    assert annotate("scribble", sample, 8, 3) == annotate("scribble", sample, 8, 3)


def test_seeds_depend_on_picture_class_and_seed() -> None:
    seeds = {seed_of(key, k, s) for key in ("a/1", "a/2") for k in (1, 2) for s in (0, 1)}
    assert len(seeds) == 8
