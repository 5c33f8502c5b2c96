"""soft_pool and prototype_fusion where the answer is known without a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fsseg_sdk import ops
from fsseg_sdk.errors import InputError

BACKGROUND, CLASS = np.float32([[1, 0, 0]]), np.float32([[0, 1, 0]])
NONE = np.zeros(0, np.int64)


def cells(*vectors: Any) -> Any:
    """One picture of one row: ``[1, 3, 1, n]``."""
    return np.float32(vectors).T[None, :, None].copy()


def fuse(features: Any, **options: Any) -> ops.Fusion:
    given: dict[str, Any] = {
        "ways": np.zeros(len(features), np.int64),
        "background": BACKGROUND,
        "sums": CLASS,
        "counts": np.ones(1, np.float32),
        "steps": 1,
    }
    return ops.prototype_fusion(features, **{**given, **options})


def test_only_cells_of_the_class_are_pooled() -> None:
    features = cells((0, 2, 1), (3, 0, 1), (0, 4, 3))
    pooled = ops.soft_pool(features, np.concatenate([BACKGROUND, CLASS]), np.zeros(1, np.int64))
    scores = 20 * np.array([2 / 5**0.5, 4 / 5])
    share = 1 / (1 + np.exp(-scores))
    assert pooled.mass[0, 0] == pytest.approx(share.sum(), rel=1e-6)
    expected = (share[0] * np.array([0, 2, 1]) + share[1] * np.array([0, 4, 3])) / share.sum()
    assert pooled.vectors[0, 0] == pytest.approx(expected, rel=1e-6)


def test_radius_is_strict() -> None:
    features = cells((0, 1, 0), (0, 0, 0))  # distances 0 and 1; the second is nobody's
    both = np.concatenate([BACKGROUND, CLASS])
    for radius, mass in ((0.0, 0.0), (1e-6, 1.0), (-1.0, 0.0)):
        pooled = ops.soft_pool(features, both, np.zeros(1, np.int64), radius=np.float32([radius]))
        assert pooled.mass[0, 0] == pytest.approx(mass, abs=1e-6)


def test_ties_go_to_the_background_then_to_the_lowest_class() -> None:
    features, ways = cells((1, 0, 0), (0, 1, 0)), np.full(1, -1)
    rows = np.concatenate([BACKGROUND, BACKGROUND, CLASS, CLASS])
    mass = ops.soft_pool(features, rows, ways).mass[0]
    assert mass[0] == 0.0 and mass[1] > 0.4 and mass[2] == 0.0
    assert not ops.soft_pool(features, rows, ways, scale=0.0).mass.any()  # all are equal


def test_zero_features_are_of_no_class() -> None:
    nothing = np.zeros((2, 3, 4, 4), np.float32)
    pooled = ops.soft_pool(nothing, np.eye(3, dtype=np.float32), np.array([0, -1]))
    assert not pooled.mass.any() and not pooled.vectors.any()


def test_a_picture_speaks_for_its_class_alone() -> None:
    features = np.concatenate([cells((0, 1, 0), (0, 0, 1))] * 3)
    pooled = ops.soft_pool(features, np.eye(3, dtype=np.float32), np.array([0, 1, -1]))
    assert (pooled.mass > 0).tolist() == [[True, False], [False, True], [True, True]]
    assert pooled.vectors[0, 0] == pytest.approx([0, 1, 0])
    assert not pooled.vectors[0, 1].any()


@pytest.mark.parametrize("options", [{"steps": 0}, {"ways": NONE, "steps": 3}])
def test_nothing_to_add(options: Any) -> None:
    features = cells((0, 1, 0))[: 0 if "ways" in options else 1]
    fusion = fuse(features, sums=CLASS * 3, counts=np.float32([2]), **options)
    assert fusion.sums.tolist() == [[0, 3, 0]] and fusion.counts.tolist() == [2]
    assert fusion.prototypes.tolist() == [[1, 0, 0], [0, 1.5, 0]]
    assert fusion.mass.shape == (options["steps"], len(features), 1)


def test_steps_start_from_the_support_each_time() -> None:
    features = cells((0, 1, 1), (1, 0, 0), (0.2, 1, 0), (0, 1, 0.5))
    once, twice = fuse(features), fuse(features, steps=2)
    assert once.counts.tolist() == twice.counts.tolist() == [2]
    again = ops.distance_stats(features, once.prototypes[1:])[0, 5]
    pooled = ops.soft_pool(
        features, once.prototypes, np.zeros(1, np.int64), radius=np.float32([again])
    )
    assert twice.sums == pytest.approx(CLASS + pooled.vectors[0], rel=1e-5)
    assert twice.mass[1] == pytest.approx(pooled.mass, rel=1e-5)


def test_constant_distances_pass_or_fail_together() -> None:
    rng = np.random.default_rng(0)
    same = cells(*(np.outer(rng.uniform(0.1, 9, 50), (0.2, 1, 0.3))))
    for radius, passes in ((1.0, False), (0.999, False), (1.001, True)):
        fusion = fuse(same, radius=radius)
        assert (fusion.mass[0, 0, 0] > 0) == passes
        assert fusion.thresholds[0, 0] == np.float32(radius)
    equal = cells(*(np.outer(rng.uniform(0.1, 9, 50), (0, 1, 0))))  # all equal the prototype
    assert fuse(equal, radius=1e-9).mass[0, 0, 0] > 49
    assert fuse(equal, radius=0.0).mass[0, 0, 0] == 0


def test_the_network_sees_distances_in_units_of_their_mean() -> None:
    features = cells((0.1, 1, 0), (0.2, 1, 0), (0.5, 1, 0), (1, 0.5, 0))
    low, high, variance, skewness, kurtosis, mean = ops.distance_stats(features, CLASS)[0]
    weight = np.float32([[0.3, -0.1, 0.5, 0.2, -0.05], [0.1, 0.4, -0.3, 0.1, 0.02]])
    bias, output = np.float32([0.1, -0.2]), np.float32([0.7, 0.4])
    five = np.array([low / mean, high / mean, variance / mean**2, skewness, kurtosis])
    gamma = output @ np.tanh(weight @ five + bias) + 0.25
    fusion = fuse(features, threshold=ops.ThresholdMlp(weight, bias, output, 0.25))
    assert fusion.thresholds[0, 0] == pytest.approx(gamma, rel=1e-4)


def test_without_distilling_every_cell_is_near_enough() -> None:
    features = cells((0, 1, 0), (0.6, 1, 0), (0.9, 1, 0))
    every, some = fuse(features, distilled=False), fuse(features)
    assert np.isinf(every.thresholds).all()
    assert every.mass[0, 0, 0] > some.mass[0, 0, 0] > 0


def test_weights_choose_the_cells() -> None:
    features = cells((0, 1, 0), (0, 1, 1), (0.3, 1, 0))
    weights = np.float32([[[1, 0, 1]]])
    seen = features[..., [0, 2]].copy()
    for mine, other in zip(fuse(features, weights=weights), fuse(seen), strict=True):
        assert mine == pytest.approx(other, rel=1e-6)
    assert fuse(features, weights=weights * 0).counts.tolist() == [1]
    stats = ops.distance_stats(features, CLASS, weights)
    assert stats == pytest.approx(ops.distance_stats(seen, CLASS), rel=1e-6)
    assert not ops.distance_stats(features, CLASS, weights * 0).any()


def test_a_class_without_support_has_the_zero_prototype() -> None:
    fusion = fuse(cells((0, 1, 0)), sums=CLASS * 0, counts=np.zeros(1, np.float32))
    assert not fusion.prototypes[1].any() and fusion.counts.tolist() == [0]


def test_an_unseen_nan_is_refused_all_the_same() -> None:
    spoiled = np.float32([[np.nan, 0, 0]])
    for options in ({"background": spoiled}, {"sums": spoiled}):
        with pytest.raises(InputError) as caught:
            fuse(cells((0, 1, 0)), steps=0, **options)
        assert caught.value.argument == next(iter(options))
