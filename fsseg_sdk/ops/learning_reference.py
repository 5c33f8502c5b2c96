"""``online_mlp`` once more, in numpy and double precision (see reference.py).

Precision "bf16" rounds what the kernel rounds: features, hidden weights and the gradients of the
hidden layer, where they enter a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .counter import dropout_mask

Array = NDArray[np.float64]
Weights = tuple[Array, Array, Array, Array]


def online_mlp_fit(
    samples: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    mlp: Sequence[NDArray[Any]],
    *,
    iterations: int,
    learning_rate: float,
    momentum: float = 0.0,
    dropout: float = 0.0,
    length: float | None = None,
    seed: int = 0,
    precision: str = "fp32",
) -> tuple[Weights, Array]:
    """``(hidden_weight, hidden_bias, output_weight, output_bias), losses`` after all iterations."""
    features = np.concatenate([_cells(f) for f, _ in samples])
    targets = np.concatenate([_cells(t) for _, t in samples])
    x = _prepared(features, length, precision)
    weights = [np.asarray(array, np.float64) for array in mlp]
    velocities = [np.zeros_like(array) for array in weights]
    losses = np.zeros(iterations)
    for iteration in range(iterations):
        keep = dropout_mask(seed, iteration, np.arange(len(x)), len(weights[1]), dropout)
        scaled_keep = keep / (1.0 - dropout)
        losses[iteration], gradients = loss_and_gradients(
            x, targets, weights, scaled_keep, precision
        )
        for weight, velocity, gradient in zip(weights, velocities, gradients, strict=True):
            velocity *= momentum
            velocity += gradient
            weight -= learning_rate * velocity
    return (weights[0], weights[1], weights[2], weights[3]), losses


def online_mlp_scores(
    features: NDArray[np.float32],
    mlp: Sequence[NDArray[Any]],
    length: float | None = None,
    precision: str = "fp32",
) -> Array:
    """``[B, C, h, w] -> [B, K, h, w]``: the logits of every cell."""
    x = _prepared(_cells(features), length, precision)
    logits = _forward(x, [np.asarray(array, np.float64) for array in mlp], 1.0, precision)[1]
    batch, _, height, width = features.shape
    return np.ascontiguousarray(logits.reshape(batch, height, width, -1).transpose(0, 3, 1, 2))


def loss_and_gradients(
    x: Array, targets: Array, mlp: Sequence[Array], keep: Array, precision: str = "fp32"
) -> tuple[float, Weights]:
    """One iteration: x ``[n, C]``, targets ``[n, K]``, keep ``[n, H]`` 0 or 1 / (1 - dropout)."""
    hidden, logits = _forward(x, mlp, keep, precision)
    below = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(below).sum(axis=1, keepdims=True))
    loss = float((targets * (log_total - below)).sum())
    error = np.exp(below - log_total) * targets.sum(axis=1, keepdims=True) - targets
    delta = (error @ mlp[2]) * keep * (hidden > 0.0)
    product = bf16(delta) if precision == "bf16" else delta
    return loss, (product.T @ x, delta.sum(axis=0), error.T @ hidden, error.sum(axis=0))


def bf16(values: Array) -> Array:
    """Rounded to the nearest bfloat16, ties to even, of the float32 that they are."""
    bits = np.asarray(values, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + odd + np.uint32(0x7FFF)) & np.uint32(0xFFFF0000)
    return rounded.view(np.float32).astype(np.float64)


def _forward(
    x: Array, mlp: Sequence[Array], keep: Array | float, precision: str
) -> tuple[Array, Array]:
    weight = bf16(mlp[0]) if precision == "bf16" else mlp[0]
    hidden = np.maximum(x @ weight.T + mlp[1], 0.0) * keep
    return hidden, hidden @ mlp[2].T + mlp[3]


def _prepared(cells: Array, length: float | None, precision: str) -> Array:
    if length is not None:
        norm = np.sqrt((cells * cells).sum(axis=1, keepdims=True))
        cells = cells * (length / np.where(norm > 0.0, norm, 1.0))
    return bf16(cells) if precision == "bf16" else cells


def _cells(planes: NDArray[np.float32]) -> Array:
    """``[B, C, h, w] -> [B * h * w, C]``."""
    return planes.astype(np.float64).transpose(0, 2, 3, 1).reshape(-1, planes.shape[1])
