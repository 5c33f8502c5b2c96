"""Features to scores: cosine, linear, and what the distances look like."""

from __future__ import annotations

from . import checks
from .checks import FloatArray
from .places import place_of
from .runtime import choose_threads


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
    place = place_of(features, "features")
    f = checks.planes(features, "features", place=place, halves=True)
    p = checks.rows(prototypes, "prototypes", (2, 3), "[P, C] or [B, P, C]", place)
    if p.shape[-1] != f.shape[1]:
        checks.agree(p.shape[-1:], f.shape[1:2], "prototypes", "channels of features:")
    if p.ndim == 3 and p.shape[0] != f.shape[0]:
        checks.agree(p.shape[:1], f.shape[:1], "prototypes", "batch of features:")
    out = place.empty((f.shape[0], p.shape[-2], *f.shape[2:]))
    factor = checks.number(scale, "scale")
    if not place.kernels.cosine_match(f, p, factor, bool(softmax), out, choose_threads(threads)):
        checks.blame({"features": f, "prototypes": p}, "Make the scale smaller.")
    return out


def linear_match(
    features: object, weights: object, bias: object, *, threads: int | None = None
) -> FloatArray:
    """``w . F + b`` at every pixel, for K classifiers at once.

    features: ``[B, C, h, w]`` float32; weights: ``[K, C]`` float32; bias: ``[K]`` float32.
    Returns ``[B, K, h, w]`` float32. Raises InputError.
    """
    place = place_of(features, "features")
    f = checks.planes(features, "features", place=place, halves=True)
    w = checks.rows(weights, "weights", (2,), "[K, C]", place)
    b = checks.rows(bias, "bias", (1,), "[K]", place)
    if w.shape[1] != f.shape[1]:
        checks.agree(w.shape[1:], f.shape[1:2], "weights", "channels of features:")
    if b.shape[0] != w.shape[0]:
        checks.agree(b.shape, w.shape[:1], "bias", "rows of weights:")
    out = place.empty((f.shape[0], w.shape[0], *f.shape[2:]))
    if not place.kernels.linear_match(f, w, b, out, choose_threads(threads)):
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
    place = place_of(features, "features")
    f = checks.planes(features, "features", place=place, halves=True)
    p = checks.rows(prototypes, "prototypes", (2,), "[N, C]", place)
    if p.shape[1] != f.shape[1]:
        checks.agree(p.shape[1:], f.shape[1:2], "prototypes", "channels of features:")
    w = checks.cell_weights(weights, "weights", f, place)
    out = place.empty((p.shape[0], 6))
    if not place.kernels.distance_stats(f, p, w, out, choose_threads(threads)):
        checks.no_negative(w, "weights")
        checks.blame(checks.given(features=f, prototypes=p, weights=w), "Scale the features down.")
    return out
