"""Random inputs of every kind that the op cases use: values, memory layouts, masks, pictures."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    """float32 features of a kind."""
    base = rng.standard_normal(shape).astype(np.float32)
    if kind == "relu":
        return np.maximum(base, 0)
    if kind == "zero":
        return np.zeros_like(base)
    if kind == "offset":  # a large common part: cosines near 1, sums that grow
        return base + np.float32(10)
    if kind == "mixed":  # neighbouring pixels of very different magnitude, some exactly zero
        powers = np.float32(10.0) ** rng.integers(-36, 36, size=(*shape[:1], 1, *shape[2:]))
        return (base * powers * (rng.random(powers.shape) > 0.2)).astype(np.float32)
    factor = {"normal": 1, "huge": 1e18, "tiny": 1e-30, "limit": 5e37, "denormal": 1e-41}[kind]
    return base * np.float32(factor)


KINDS = ["relu", "zero", "offset", "mixed", "huge", "tiny", "limit", "denormal"]


def laid_out(array: Any, layout: str) -> Any:
    """The same values with other strides; NaN lies in whatever a kernel must not read."""
    batch, channels, height, width = array.shape
    if layout == "contiguous":
        return array
    if layout == "read-only":
        array.flags.writeable = False
        return array
    if layout == "broadcast":  # stride 0: all pictures share one memory
        return np.broadcast_to(array[:1], array.shape)
    if layout == "transposed":  # planes are not contiguous: ops must copy
        return np.ascontiguousarray(array.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    if layout == "cropped":
        wide = np.full((batch, channels, height, width + 3), np.nan, np.float32)
        wide[..., 1 : width + 1] = array
        return wide[..., 1 : width + 1]
    if layout == "strided":
        wide = np.full((batch * 2, channels * 3 + 1, height, width), np.nan, np.float32)
        view = wide[1::2, 1::3][:, :channels]
    elif layout == "backwards":
        wide = np.full((batch + 1, channels + 2, height, width), np.nan, np.float32)
        view = wide[batch:0:-1, channels:0:-1]
    elif layout == "offset":  # starts one float after an aligned address
        flat = np.full(array.size + 1, np.nan, np.float32)
        view = flat[1:].reshape(array.shape)
    else:
        raise ValueError(layout)
    view[...] = array
    return view


LAYOUTS = [
    *("read-only", "broadcast", "transposed", "cropped", "strided", "backwards", "offset"),
]


WEIGHTS = ["float", "few", "one", "empty", "tiny"]


def cell_weights(rng: np.random.Generator, shape: tuple[int, ...], kind: str | None) -> Any:
    """float32 ``[B, h, w]`` of 0 or more for features of this shape; None of kind None."""
    if kind is None:
        return None
    weights = rng.random((shape[0], *shape[2:]), dtype=np.float32)
    if kind == "few":
        weights *= rng.random(weights.shape) < 0.3
    if kind == "tiny":
        weights *= np.float32(1e-30)
    if kind == "one":
        weights.reshape(-1)[:-1] = 0
    if kind == "empty":
        weights[...] = 0
    return weights


def mask_of(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> Any:
    """Masks ``[B, H, W]`` of a kind."""
    if kind == "empty":
        return np.zeros(shape, np.uint8)
    if kind == "full":
        return np.ones(shape, np.uint8)
    if kind == "pixel":
        mask = np.zeros(shape, np.uint8)
        mask[:, -1, -1] = 1
        return mask
    if kind == "bool":
        return rng.random(shape) < 0.4
    if kind == "weights":
        return rng.integers(0, 256, shape).astype(np.uint8)
    if kind == "float":
        return rng.random(shape, dtype=np.float32)
    if kind == "rows":  # every other row of a larger array, upside down
        wide = rng.integers(0, 2, (shape[0] * 2, shape[1] * 2, shape[2] + 5)).astype(np.uint8)
        return wide[::2, ::-2, 2:-3]
    if kind == "columns":  # the last axis is not contiguous: ops must copy
        return rng.integers(0, 2, (*shape[:2], shape[2] * 2)).astype(np.uint8)[:, :, ::2]
    return rng.integers(0, 2, shape).astype(np.uint8)


def picture(rng: np.random.Generator, size: tuple[int, int], layout: str) -> Any:
    """uint8 ``[H, W, 3]``, strided in the ways that cameras and crops are."""
    height, width = size
    pixels = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if layout == "rgba":  # pixel stride 4
        wide = rng.integers(0, 256, (height, width, 4)).astype(np.uint8)
        wide[..., :3] = pixels
        return wide[..., :3]
    if layout == "cropped":
        wide = rng.integers(0, 256, (height + 2, width + 5, 3)).astype(np.uint8)
        wide[1:-1, 2:-3] = pixels
        return wide[1:-1, 2:-3]
    if layout == "sparse":  # pixel stride 6
        return np.repeat(pixels, 2, axis=1)[:, ::2]
    if layout == "flipped-rgba":  # pixel stride -4
        return np.concatenate([pixels, pixels[..., :1]], axis=2)[:, ::-1, :3]
    if layout == "flipped":
        return pixels[::-1, ::-1]
    if layout == "turned":
        return np.ascontiguousarray(pixels.transpose(1, 0, 2)).transpose(1, 0, 2)
    if layout == "bgr":  # channels run backwards: ops must copy
        return np.ascontiguousarray(pixels[..., ::-1])[..., ::-1]
    if layout == "read-only":
        pixels.flags.writeable = False
    return pixels
