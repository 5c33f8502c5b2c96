"""The ops once more, in numpy and double precision: what the kernels are compared with.

Written for being right at a glance, not for speed: every op is its equation. Arguments and shapes
are those of ``fsseg_sdk.ops``; results are float64 (labels: uint8). Arguments are not checked.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .fusion_reference import prototype_fusion as prototype_fusion
from .fusion_reference import soft_pool as soft_pool
from .learning_reference import online_mlp_fit as online_mlp_fit
from .learning_reference import online_mlp_scores as online_mlp_scores
from .neighbour_reference import logistic_fit as logistic_fit
from .neighbour_reference import nearest as nearest
from .statistics_reference import cosines as cosines
from .statistics_reference import distance_stats as distance_stats
from .statistics_reference import flat

Array = NDArray[np.float64]


def interpolation_matrix(size: int, grid: int, extent: float) -> Array:
    """``[size, grid]``: row x holds the bilinear weights of pixel x on the cells of the grid.

    Pixel x sits at ``(x + 0.5) * extent / size - 0.5``, clamped to ``[0, ceil(extent) - 1]``.
    """
    last = min(math.ceil(extent), grid) - 1
    place = np.clip((np.arange(size) + 0.5) * extent / size - 0.5, 0.0, last)
    left = np.floor(place).astype(int)
    right = np.minimum(left + 1, last)
    matrix = np.zeros((size, grid))
    rows = np.arange(size)
    matrix[rows, left] += 1.0 - (place - left)
    matrix[rows, right] += place - left
    return matrix


def grid_weights(
    masks: NDArray[np.generic], grid: tuple[int, int], extent: tuple[float, float] | None = None
) -> Array:
    """``[B, H, W] -> [B, h, w]``: the transpose of the bilinear upsampling ``[h, w] -> [H, W]``."""
    height, width = extent or (float(grid[0]), float(grid[1]))
    rows = interpolation_matrix(masks.shape[1], grid[0], height)
    columns = interpolation_matrix(masks.shape[2], grid[1], width)
    return np.asarray(rows.T @ masks.astype(np.float64) @ columns)


def weighted_pool(features: NDArray[np.float32], weights: NDArray[np.float32], eps: float) -> Array:
    """``[B, C, h, w], [B, M, h, w] -> [B, M, C]``: ``sum(F w) / (sum w + eps)``."""
    f, w = flat(features), flat(weights)
    return np.asarray((w @ f.transpose(0, 2, 1)) / (w.sum(axis=2)[:, :, None] + eps))


def cosine_match(
    features: NDArray[np.float32],
    prototypes: NDArray[np.float32],
    scale: float = 20.0,
    softmax: bool = False,
) -> Array:
    """``[B, C, h, w], [P, C] or [B, P, C] -> [B, P, h, w]``: ``scale * cosine``, softmax over P."""
    scores = scale * cosines(features, prototypes)
    if softmax:
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    return scores.reshape(features.shape[0], -1, *features.shape[2:])


def linear_match(
    features: NDArray[np.float32], weights: NDArray[np.float32], bias: NDArray[np.float32]
) -> Array:
    """``[B, C, h, w], [K, C], [K] -> [B, K, h, w]``: ``w . F + b`` at each pixel."""
    scores = weights.astype(np.float64) @ flat(features) + bias.astype(np.float64)[:, None]
    return scores.reshape(features.shape[0], -1, *features.shape[2:])


def upsample(
    logits: NDArray[np.float32], size: tuple[int, int], extent: tuple[float, float] | None = None
) -> Array:
    """``[B, P, h, w] -> [B, P, H, W]``, bilinear, align_corners=False."""
    height, width = extent or (float(logits.shape[2]), float(logits.shape[3]))
    rows = interpolation_matrix(size[0], logits.shape[2], height)
    columns = interpolation_matrix(size[1], logits.shape[3], width)
    return np.asarray(rows @ logits.astype(np.float64) @ columns.T)


def upsample_argmax(
    logits: NDArray[np.float32],
    size: tuple[int, int],
    extent: tuple[float, float] | None = None,
    labels: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """``[B, P, h, w] -> [B, H, W]`` uint8: argmax over P of the upsampling; ties to the lowest.

    ``labels [P]``: what each plane stands for; None: its number.
    """
    winners = upsample(logits, size, extent).argmax(axis=1)
    return np.asarray(winners if labels is None else labels[winners], np.uint8)


def triangle_matrix(size: int, result: int) -> Array:
    """``[result, size]``: the antialiasing triangle filter, as Pillow's BILINEAR defines it.

    ``scale = size / result``, support ``max(scale, 1)``, centre ``(x + 0.5) * scale``; the weights
    of a row, cut off at the borders, sum to 1.
    """
    scale = size / result
    support = max(scale, 1.0)
    centre = (np.arange(result) + 0.5)[:, None] * scale
    matrix = np.maximum(0.0, 1.0 - np.abs(np.arange(size) + 0.5 - centre) / support)
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True))


def preprocess(
    image: NDArray[np.uint8],
    input_size: tuple[int, int],
    content: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Array:
    """uint8 ``[H, W, 3] -> [1, 3, S_h, S_w]``: filter to content, normalise, pad with 0."""
    rows = triangle_matrix(image.shape[0], content[0])
    columns = triangle_matrix(image.shape[1], content[1])
    small = rows @ image.transpose(2, 0, 1).astype(np.float64) @ columns.T
    normalised = (small / 255.0 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    result = np.zeros((1, 3, *input_size))
    result[0, :, : content[0], : content[1]] = normalised
    return result
