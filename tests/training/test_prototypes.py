"""The differentiable twins agree with the double-precision reference of the kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fsseg_sdk.methods.parts import split
from fsseg_sdk.ops import reference
from training.losses import segmentation_loss
from training.prototypes import background_parts, grid_weights, match, pool


@pytest.mark.parametrize(
    ("size", "grid"), [((32, 48), (4, 6)), ((33, 17), (5, 3)), ((3, 5), (7, 9)), ((9, 9), (1, 1))]
)
def test_grid_weights(size: tuple[int, int], grid: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).random((2, *size)).astype(np.float32)
    got = grid_weights(torch.from_numpy(masks), grid).numpy()
    np.testing.assert_allclose(got, reference.grid_weights(masks, grid), rtol=1e-4, atol=1e-5)


def test_pool_and_match() -> None:
    generator = np.random.default_rng(1)
    features = generator.standard_normal((2, 12, 5, 7)).astype(np.float32)
    weights = generator.random((2, 3, 5, 7)).astype(np.float32)
    prototypes = reference.weighted_pool(features, weights, 1e-5)
    got = pool(torch.from_numpy(features), torch.from_numpy(weights))
    np.testing.assert_allclose(got.numpy(), prototypes, rtol=1e-4, atol=1e-6)
    expected = reference.cosine_match(features, prototypes.astype(np.float32), 20.0)
    np.testing.assert_allclose(
        match(torch.from_numpy(features), got, 20.0).numpy(), expected, rtol=1e-3, atol=1e-3
    )


def test_background_parts_are_those_of_the_runtime() -> None:
    generator = np.random.default_rng(2)
    features = generator.standard_normal((2, 6, 5, 7)).astype(np.float32)
    weights = np.clip(generator.uniform(-1, 3, (2, 5, 7)), 0, 1).astype(np.float32)
    for parts in (1, 3):
        got = background_parts(torch.from_numpy(features), torch.from_numpy(weights), parts).numpy()
        for index in range(2):
            planes = split(features[index], weights[index], parts)
            expected = reference.weighted_pool(features[index][None], planes[None], 1e-5)[0]
            mass = planes.sum((1, 2))
            expected[mass == 0] = expected[mass.argmax()]
            np.testing.assert_allclose(got[index], expected, rtol=1e-4, atol=1e-5)


def _scene() -> tuple[torch.Tensor, torch.Tensor]:
    """A mask of two ways, and logits that give exactly it."""
    masks = torch.zeros(1, 16, 16, dtype=torch.uint8)
    masks[:, 4:12, 4:8] = 1
    masks[:, 4:12, 10:14] = 2
    return masks, torch.stack([(masks == way).float() for way in range(3)], 1) * 40


def test_loss_is_small_for_the_right_answer_only() -> None:
    masks, right = _scene()
    known = torch.ones(1, 3, dtype=torch.bool)
    assert segmentation_loss(right, masks, known) < 0.01
    assert segmentation_loss(right.flip(1), masks, known) > 5


def test_ignored_pixels_and_unshown_ways_have_no_part() -> None:
    masks, right = _scene()
    known = torch.tensor([[True, True, False]])
    spoilt = right.clone()
    spoilt[:, 2] += 100  # the support does not show way 2
    spoilt[:, :2, 4:12, 10:14] = torch.randn(2, 8, 4)  # so what stands there does not count
    masks[:, :2] = 255
    spoilt[:, :, :2] = -spoilt[:, :, :2]
    assert segmentation_loss(spoilt, masks, known) < 0.01
