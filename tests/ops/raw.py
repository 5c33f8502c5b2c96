"""The binding itself, writing into the test's buffer: sentinels show stray writes."""

from __future__ import annotations

from typing import Any

import numpy as np

from fsseg_sdk import _kernels
from fsseg_sdk.ops import checks

PAD = 131  # elements on each side; odd, so that the result is not aligned to vectors


def binding_arguments(op: str, a: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments before ``out`` and ``threads``, as fsseg_sdk.ops passes them."""
    if op == "grid_weights":
        masks = checks.mask_stack(a["masks"], "masks")
        return (masks, *checks.extent_pair(a["extent"], a["grid"]))
    if op == "weighted_pool":
        features, weights = (checks.planes(a[name], name) for name in ("features", "weights"))
        return features, weights, a["eps"]
    if op == "cosine_match":
        features = checks.planes(a["features"], "features")
        return features, a["prototypes"], a["scale"], a["softmax"]
    if op == "linear_match":
        return checks.planes(a["features"], "features"), a["weights"], a["bias"]
    if op == "distance_stats":
        return checks.planes(a["features"], "features"), a["prototypes"]
    if op == "upsample_argmax":
        logits = checks.planes(a["logits"], "logits")
        return (logits, *checks.extent_pair(a["extent"], logits.shape[2:]))
    return checks.rgb(a["image"], "image"), *a["content"], a["mean"], a["std"]


def run_padded(op: str, arguments: dict[str, Any], shape: tuple[int, ...], fill: int) -> Any:
    """The op's result, computed inside a buffer filled with the byte ``fill``.

    Raises AssertionError if the kernel wrote outside of its result.
    """
    dtype = np.dtype(np.uint8 if op == "upsample_argmax" else np.float32)
    size = int(np.prod(shape))
    buffer = np.full((size + 2 * PAD) * dtype.itemsize, fill, np.uint8).view(dtype)
    out = buffer[PAD : PAD + size].reshape(shape)
    kernel = getattr(_kernels, op)
    assert kernel(*binding_arguments(op, arguments), out, 3)
    around = np.concatenate([buffer[:PAD], buffer[PAD + size :]]).view(np.uint8)
    assert (around == fill).all(), f"{op} wrote outside of its result"
    return out.copy()
