"""What the ops are measured against: the forms that published code has, in torch, and Pillow.

Each function gives the op's result as numpy, so that it is checked before it is timed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as tf
from PIL import Image

Tensor = torch.Tensor


def upsample_then_pool(features: Tensor, masks: Tensor) -> Any:
    """PANet, PAIA and others: features to the mask's size, times the mask, over its area."""
    large = tf.interpolate(features, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    area = masks.sum(dim=(-2, -1))[:, None] + 1e-5
    return ((large * masks[:, None]).sum(dim=(-2, -1)) / area).numpy()


def upsampling_backward(masks: Tensor, grid: tuple[int, int]) -> Any:
    """The transpose of interpolate, as torch has it: its gradient."""
    zero = torch.zeros(masks.shape[0], 1, *grid, requires_grad=True)
    large = tf.interpolate(zero, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    return torch.autograd.grad(large, zero, masks[:, None])[0][:, 0].numpy()


def multiply_and_sum(features: Tensor, weights: Tensor) -> Any:
    """Masked pooling at the features' size: one product and one sum for each map."""
    maps = [
        (features * w).sum(dim=(2, 3)) / (w.sum(dim=(2, 3)) + 1e-5)
        for w in torch.split(weights, 1, dim=1)
    ]
    return torch.stack(maps, dim=1).numpy()


def cosine_similarity(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Any:
    """PANet's calDist: cosine_similarity with one prototype after another."""
    maps = [tf.cosine_similarity(features, p[None, :, None, None], dim=1) for p in prototypes]
    return (torch.stack(maps, dim=1) * scale).numpy()


def convolution(features: Tensor, weights: Tensor, bias: Tensor) -> Any:
    """A 1x1 convolution."""
    return tf.conv2d(features, weights[:, :, None, None], bias).numpy()


def statistics(features: Tensor, prototypes: Tensor) -> Any:
    """Distances, then one reduction for each figure."""
    rows = []
    for p in prototypes:
        d = 1 - tf.cosine_similarity(features, p[None, :, None, None], dim=1)
        centred = d - d.mean()
        variance = (centred**2).mean()
        skewness = (centred**3).mean() / variance**1.5
        kurtosis = (centred**4).mean() / variance**2
        rows.append(torch.stack([d.min(), d.max(), variance, skewness, kurtosis]))
    return torch.stack(rows).numpy()


def soft_pooling(features: Tensor, rows: Tensor) -> Any:
    """PAIA eq. 2: probabilities and pseudo mask of the map, then a weighted mean."""
    return _weighted_mean(features, rows, None).numpy()


def fusion_loop(features: Tensor, rows: Tensor, steps: int) -> Any:
    """PAIA eq. 5, one support picture, radius: the mean distance."""
    support, prototypes = rows[1:], rows
    for _ in range(steps):
        distances = 1 - tf.cosine_similarity(features, prototypes[1, None, :, None, None], dim=1)
        mean = _weighted_mean(features, prototypes, distances < distances.mean())[0]
        prototypes = torch.cat([rows[:1], (support + mean) / 2])
    return prototypes.numpy()


def _weighted_mean(features: Tensor, rows: Tensor, near: Tensor | None) -> Tensor:
    maps = [tf.cosine_similarity(features, p[None, :, None, None], dim=1) for p in rows]
    scores = torch.stack(maps, dim=1) * 20.0
    weights = scores.softmax(dim=1)[:, 1] * (scores.argmax(dim=1) == 1)
    if near is not None:
        weights = weights * near
    total = (features * weights[:, None]).sum(dim=(2, 3))
    return (total / weights.sum(dim=(1, 2))[:, None])[:, None]


def interpolate_argmax(logits: Tensor, size: tuple[int, int]) -> Any:
    """Logits to the picture's size, then argmax over the classes."""
    large = tf.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return large.argmax(1).to(torch.uint8).numpy()


def interpolate_sign(logits: Tensor, size: tuple[int, int]) -> Any:
    """The best form for two classes: the sign of the upsampled difference."""
    difference = logits[:, 1:2] - logits[:, 0:1]
    large = tf.interpolate(difference, size=size, mode="bilinear", align_corners=False)
    return (large[:, 0] > 0).to(torch.uint8).numpy()


def pillow_numpy(image: Any, size: tuple[int, int], mean: Any, std: Any) -> Any:
    """Pillow's BILINEAR, then numpy."""
    small = Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    scaled = np.asarray(small, np.float32) / np.float32(255)
    normalised = (scaled - np.float32(mean)) / np.float32(std)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))[None]


def two_products(features: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Any:
    """Both layers of a small classifier, the hidden one in memory as a whole."""
    x = features.flatten(2)[0]
    scores = torch.addmm(b2[:, None], w2, torch.relu(torch.addmm(b1[:, None], w1, x)))
    return scores.reshape(1, -1, *features.shape[2:]).numpy()
