"""nearest and logistic_fit once more, in numpy and double precision (see reference.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .learning_reference import bf16
from .statistics_reference import Array, flat, unit


def nearest(
    features: NDArray[np.float32],
    rows: NDArray[np.float32],
    group: NDArray[np.int64],
    groups: int,
    *,
    precision: str = "fp32",
) -> Array:
    """``[B, C, h, w], [M, C], [M] -> [B, groups, h, w]``: the largest cosine; -1 without rows."""
    cells, unit_rows = unit(flat(features), 1), unit(rows.astype(np.float64), 1)
    if precision == "bf16":
        cells, unit_rows = bf16(cells), bf16(unit_rows)
    cosines = unit_rows @ cells
    result = np.full((len(features), groups, cosines.shape[-1]), -1.0)
    for g in range(groups):
        if (group == g).any():
            result[:, g] = cosines[:, group == g].max(axis=1)
    # What rounding makes less than -1 is -1, as for a group without rows.
    return np.maximum(result, -1.0).reshape(len(features), groups, *features.shape[2:])


def logistic_fit(
    cells: NDArray[np.float32],
    targets: NDArray[np.float32],
    weights: NDArray[np.float32],
    *,
    steps: int,
    rate: float = 1.0,
    momentum: float = 0.9,
    l2: float = 0.0,
) -> tuple[Array, Array, Array]:
    """``[M, C], [M, G], [M, G] -> weight [G, C], bias [G], losses [steps, G]``."""
    x, t, w = (np.asarray(a, np.float64) for a in (cells, targets, weights))
    curvature = 0.25 * ((x * x).sum(axis=1) + 1.0) @ w
    step = np.where(curvature > 0.0, rate / np.maximum(curvature + l2, 1e-300), 0.0)
    parameters: list[Any] = [np.zeros((t.shape[1], x.shape[1])), np.zeros(t.shape[1])]
    velocities = [np.zeros_like(p) for p in parameters]
    losses = np.zeros((steps, t.shape[1]))
    for s in range(steps):
        z = x @ parameters[0].T + parameters[1]
        entropy = np.logaddexp(0.0, z) - t * z
        losses[s] = (w * entropy).sum(axis=0) + l2 / 2 * (parameters[0] ** 2).sum(axis=1)
        error = w * (np.exp(-np.logaddexp(0.0, -z)) - t)
        gradients = [error.T @ x + l2 * parameters[0], error.sum(axis=0)]
        for p, v, gradient in zip(parameters, velocities, gradients, strict=True):
            v *= momentum
            v += gradient
            p -= (step[:, None] if p.ndim == 2 else step) * v
    return parameters[0], parameters[1], losses
