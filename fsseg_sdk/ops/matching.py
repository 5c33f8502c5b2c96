"""Features to scores: cosine, linear, and what the distances look like."""

from __future__ import annotations

import numpy as np

from . import checks
from .checks import FloatArray
from .runtime import choose_threads, kernels


def cosine_match(
    features: object,
    prototypes: object,
    scale: float = 20.0,
    softmax: bool = False,
    *,
    threads: int | None = None,
) -> FloatArray:
    """``scale * cosine`` of every pixel with every prototype, in one pass over the features.

    features: ``[B, C, h, w]`` float32; prototypes: ``[P, C]`` for all, or ``[B, P, C]``, float32.
    softmax: over the P scores of a pixel. The cosine of anything with a zero vector is 0.
    Returns ``[B, P, h, w]`` float32. Raises InputError.
    """
    f = checks.planes(features, "features")
    p = checks.rows(prototypes, "prototypes", (2, 3), "[P, C] or [B, P, C]")
    if p.shape[-1] != f.shape[1]:
        checks.agree(p.shape[-1:], f.shape[1:2], "prototypes", "channels of features:")
    if p.ndim == 3 and p.shape[0] != f.shape[0]:
        checks.agree(p.shape[:1], f.shape[:1], "prototypes", "batch of features:")
    out = np.empty((f.shape[0], p.shape[-2], *f.shape[2:]), np.float32)
    factor = checks.number(scale, "scale")
    if not kernels.cosine_match(f, p, factor, bool(softmax), out, choose_threads(threads)):
        checks.blame({"features": f, "prototypes": p}, "Make the scale smaller.")
    return out


def linear_match(
    features: object, weights: object, bias: object, *, threads: int | None = None
) -> FloatArray:
    """``w . F + b`` at every pixel, for K classifiers at once.

    features: ``[B, C, h, w]`` float32; weights: ``[K, C]`` float32; bias: ``[K]`` float32.
    Returns ``[B, K, h, w]`` float32. Raises InputError.
    """
    f = checks.planes(features, "features")
    w = checks.rows(weights, "weights", (2,), "[K, C]")
    b = checks.rows(bias, "bias", (1,), "[K]")
    if w.shape[1] != f.shape[1]:
        checks.agree(w.shape[1:], f.shape[1:2], "weights", "channels of features:")
    if b.shape[0] != w.shape[0]:
        checks.agree(b.shape, w.shape[:1], "bias", "rows of weights:")
    out = np.empty((f.shape[0], w.shape[0], *f.shape[2:]), np.float32)
    if not kernels.linear_match(f, w, b, out, choose_threads(threads)):
        checks.blame({"features": f, "weights": w, "bias": b}, "Scale the features down.")
    return out


def distance_stats(
    features: object, prototypes: object, weights: object = None, *, threads: int | None = None
) -> FloatArray:
    """Shape of the distances ``d = 1 - cosine`` of all B*h*w pixels to each of N prototypes.

    features: ``[B, C, h, w]`` float32; prototypes: ``[N, C]`` float32; weights: ``[B, h, w]``
    float32 of 0 or more, how much a pixel counts (min and max: all with a weight above 0), or None.
    Returns ``[N, 6]`` float32: min, max, variance (of the population), skewness, kurtosis (3 for a
    normal distribution), mean. Of constant distances (standard deviation below 1e-6, the rounding
    of a cosine) variance, skewness and kurtosis are 0; where nothing has a weight, all six.
    Raises InputError.
    """
    f = checks.planes(features, "features")
    p = checks.rows(prototypes, "prototypes", (2,), "[N, C]")
    if p.shape[1] != f.shape[1]:
        checks.agree(p.shape[1:], f.shape[1:2], "prototypes", "channels of features:")
    w = checks.cell_weights(weights, "weights", f)
    out = np.empty((p.shape[0], 6), np.float32)
    if not kernels.distance_stats(f, p, w, out, choose_threads(threads)):
        checks.no_negative(w, "weights")
        checks.blame(checks.given(features=f, prototypes=p, weights=w), "Scale the features down.")
    return out
