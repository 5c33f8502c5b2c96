"""Pictures and masks at the encoder's input size, by the same filter that the runtime uses."""

from __future__ import annotations

import cv2
import numpy as np

from fsseg_sdk import ops


def fit_to(pixels: np.ndarray, mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Squash ``[H, W, 3] uint8`` and its mask ``[H, W]`` or ``[H, W, L]`` to ``side x side``.

    Masks by nearest neighbour, so labels stay labels.
    """
    if mask.shape[:2] == (side, side):
        return pixels, mask
    unit = ops.preprocess(
        np.ascontiguousarray(pixels), (side, side), (side, side), (0.0,) * 3, (1.0,) * 3
    )[0]
    resized = np.rint(unit.transpose(1, 2, 0) * 255).astype(np.uint8)
    return resized, cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST_EXACT)
