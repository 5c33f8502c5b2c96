"""Masks to the feature grid, and features to prototypes."""

from __future__ import annotations

from . import checks
from .checks import FloatArray
from .places import place_of
from .runtime import choose_threads


def grid_weights(
    masks: object,
    grid: tuple[int, int],
    extent: tuple[float, float] | None = None,
    *,
    threads: int | None = None,
) -> FloatArray:
    """Push masks down to the feature grid with the transpose of bilinear upsampling.

    ``sum(upsample(F) * mask) == sum(F * grid_weights(mask))`` for any features F: pooling at the
    grid's size gives the number that pooling upsampled features would give. No object is too small
    to leave a trace, and the sum of a mask is kept.

    masks: ``[B, H, W]`` uint8, bool or float32 (values are weights; give 0/1, not 0/255).
    grid: ``(h, w)``. extent: the part of the grid that the picture covers, in cells, from the
    top left; None is all of it. Returns ``[B, h, w]`` float32. Raises InputError.
    """
    place = place_of(masks, "masks")
    array = checks.mask_stack(masks, "masks", place)
    height, width = checks.size_pair(grid, "grid")
    extent_h, extent_w = checks.extent_pair(extent, (height, width))
    out = place.empty((array.shape[0], height, width))
    if not place.kernels.grid_weights(array, extent_h, extent_w, out, choose_threads(threads)):
        checks.blame({"masks": array}, "Scale the weights down.")
    return out


def weighted_pool(
    features: object, weights: object, eps: float = 1e-5, *, threads: int | None = None
) -> FloatArray:
    """Masked average pooling: ``sum(F w) / (sum w + eps)`` for M weight maps at once.

    features: ``[B, C, h, w]`` float32; weights: ``[B, M, h, w]`` float32 (binary, soft or
    distilled). Returns ``[B, M, C]`` float32. Raises InputError.
    """
    place = place_of(features, "features")
    f = checks.planes(features, "features", place=place, halves=True)
    w = checks.planes(weights, "weights", "[B, M, h, w]", place=place)
    if w.shape[0] != f.shape[0] or w.shape[2:] != f.shape[2:]:
        got, wanted = (w.shape[0], *w.shape[2:]), (f.shape[0], *f.shape[2:])
        checks.agree(got, wanted, "weights", "batch, height and width of features:")
    out = place.empty((f.shape[0], w.shape[1], f.shape[1]))
    addend = checks.number(eps, "eps")
    if not place.kernels.weighted_pool(f, w, addend, out, choose_threads(threads)):
        checks.blame({"features": f, "weights": w}, "The sum of weights and eps must not be 0.")
    return out
