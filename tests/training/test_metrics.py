"""Counting and intervals, against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.bootstrap import interval, picture_weights
from training.evaluation.metrics import (
    Cells,
    auroc,
    binary,
    calibration_error,
    confusion,
    intersections_and_unions,
)
from training.evaluation.rows import Entries, by_entry, deviation, fb_iou

TRUTH = np.array([[0, 0, 1, 1], [0, 2, 2, 255]], np.uint8)
FOUND = np.array([[0, 1, 1, 0], [0, 2, 1, 2]], np.uint8)


def test_confusion_by_hand() -> None:
    """The pixel of 255 counts nowhere, whatever was found there."""
    assert confusion(FOUND, TRUTH, 3).tolist() == [[2, 1, 0], [1, 1, 0], [0, 1, 1]]
    assert confusion(FOUND[:, :3], np.full((2, 3), 255, np.uint8), 3).sum() == 0


def test_intersection_and_union_by_hand() -> None:
    """Class 1: right in 1 pixel, 3 found, 2 true; class 2: 1, 1, 2."""
    right, either = intersections_and_unions(confusion(FOUND, TRUTH, 3))
    assert right.tolist() == [2, 1, 1]
    assert either.tolist() == [4, 4, 2]


def test_foreground_is_all_classes_in_one() -> None:
    """The same as if classes had been one from the start."""
    one = np.where(TRUTH == 2, 1, TRUTH).astype(np.uint8)
    expected = confusion(np.minimum(FOUND, 1), one, 2)
    assert binary(confusion(FOUND, TRUTH, 3)).tolist() == expected.tolist()


def test_mean_iou_sums_by_class_and_run_first() -> None:
    """Run 0: class 1 (2 + 4) / 20, class 2 5 / 10; run 1: class 1 8 / 10. Means 40 and 80."""
    cells = Cells.of([0, 0, 0, 1], [1, 1, 2, 1])
    right, either = np.array([2, 4, 5, 8]), np.array([10, 10, 10, 10])
    assert cells.mean_iou(right, either) == pytest.approx(60)
    assert cells.by_group(cells.iou(right, either)).tolist() == pytest.approx([0.4, 0.8])
    weights = np.array([0.0, 2.0, 1.0, 1.0])
    assert cells.mean_iou(right, either, weights) == pytest.approx(100 * (0.45 + 0.8) / 2)


def test_a_class_without_pixels_is_left_out_of_the_mean() -> None:
    cells = Cells.of([0, 0], [1, 2])
    assert cells.mean_iou(np.array([3, 0]), np.array([6, 0])) == pytest.approx(50)
    assert np.isnan(cells.mean_iou(np.array([0, 0]), np.array([0, 0])))


def two_ways() -> np.ndarray:
    """Of two episodes with classes 1 and 2: the second query does not show class 2, of which 30
    pixels are found."""
    first = [[50, 0, 0], [0, 20, 0], [0, 10, 20]]
    second = [[40, 0, 30], [10, 20, 0], [0, 0, 0]]
    return np.array([first, second])


def test_false_positives_of_absent_classes_by_both_rules() -> None:
    right, either = by_entry(two_ways(), "all")
    assert right.tolist() == [20, 20, 20, 0]
    assert either.tolist() == [30, 30, 30, 30]
    right, either = by_entry(two_ways(), "present")
    assert right.tolist() == [20, 20, 20, 0]
    assert either.tolist() == [30, 30, 30, 0]


def test_fb_iou_by_hand() -> None:
    """Background 90 of 130 pixels; foreground 70 of 110 (class 2 taken for 1 is foreground)."""
    assert fb_iou(two_ways(), np.array([0, 0])) == pytest.approx(100 * (90 / 130 + 70 / 110) / 2)
    assert len(fb_iou(two_ways(), np.array([0, 1]))) == 2


def test_deviation_is_that_of_a_sample() -> None:
    assert deviation(np.array([50.0, 52.0, 54.0])) == pytest.approx(2)
    assert deviation(np.array([50.0])) is None


def test_pictures_are_drawn_whole_and_within_their_set() -> None:
    """Episodes of a picture come together; as many pictures of each set as it has."""
    pictures, sets = ["p", "p", "q", "r", "s"], ["a", "a", "a", "b", "b"]
    every = np.stack(list(picture_weights(pictures, sets, repeats=50)))
    assert (every[:, 0] == every[:, 1]).all()
    assert (every[:, 0] + every[:, 2] == 2).all()
    assert (every[:, 3] + every[:, 4] == 2).all()
    assert every[:, 0].std() > 0


def test_the_interval_of_a_mean_is_the_known_one() -> None:
    """Of 400 values with standard deviation 1: 1.96 / 20 to either side."""
    values = np.random.default_rng(1).standard_normal(400)
    weights = picture_weights(range(400), repeats=2000)
    low, high = interval(lambda w: float((w * values).sum() / w.sum()), weights)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert low < values.mean() < high


def entries(right: list[int]) -> Entries:
    count = len(right)
    queries = [f"p{n // 2}" for n in range(count)]
    runs = [n % 2 for n in range(count)]
    return Entries([1] * count, runs, queries, [7] * count, np.array(right), np.full(count, 10))


def test_the_paired_interval_covers_zero_for_equal_results() -> None:
    own = entries([n % 10 for n in range(40)])
    assert own.less(own, repeats=50) == (0, 0, 0)


def test_the_paired_interval_is_narrower_than_the_single_ones() -> None:
    """Both lose on the same pictures: the difference is sure, though neither figure is."""
    worse = entries([n % 8 for n in range(40)])
    better = entries([n % 8 + 1 + (n % 3 == 0) for n in range(40)])
    difference, low, high = better.less(worse, repeats=300)
    assert 0 < low < difference < high
    single = better.interval(300)
    assert high - low < (single[1] - single[0]) / 2


def test_other_episodes_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same episodes"):
        entries([1, 2]).less(entries([1, 2, 3, 4]))


def test_auroc_by_hand() -> None:
    present = np.array([True, True, False, False])
    assert auroc(np.array([0.9, 0.4, 0.4, 0.1]), present) == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert auroc(np.array([0.9, 0.8, 0.2, 0.1]), present) == 1
    assert auroc(np.array([0.1, 0.2, 0.8, 0.9]), present) == 0


def test_calibration_error_by_hand() -> None:
    """Two in the bin from 0.2, two in the last (which holds a score of 1), one present in each."""
    scores = np.array([0.22, 0.28, 0.9, 1.0])
    present = np.array([True, False, True, False])
    expected = 0.5 * abs(0.5 - 0.25) + 0.5 * abs(0.5 - 0.95)
    assert calibration_error(scores, present) == pytest.approx(expected)
