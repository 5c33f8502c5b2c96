"""Pseudo labels of pixels: the prototype that a pixel's feature is most like, level by level."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fsseg_sdk import ops
from training.datasets import IGNORE
from training.prototypes import match
from training.spfl.clusters import Hierarchy
from training.spfl.latents import UNKNOWN


def pseudo_labels(
    features: Tensor, labels: NDArray[Any], hierarchy: Hierarchy
) -> NDArray[np.uint8]:
    """Eq. 3, at the picture's own size: cosines are upsampled, then the largest is taken.

    Pixels of objects get one of the foreground's prototypes, others one of the background's.

    Args:
        features: ``[C, h, w]`` of the whole picture.
        labels: ``[H, W]`` class ids: 0 is background, 255 unknown.

    Returns:
        ``[L, H, W] uint8``: foreground prototypes from 0 on, those of the background after them;
        255 where the class is unknown.
    """
    size = (labels.shape[0], labels.shape[1])
    unknown = labels == IGNORE
    background = labels == 0
    found = np.full((len(hierarchy.levels), *size), UNKNOWN, np.uint8)
    for level, (first, _) in enumerate(hierarchy.levels):
        for where, tree, offset in (
            (~background & ~unknown, hierarchy.foreground, 0),
            (background, hierarchy.background, first),
        ):
            if where.any():
                nearest = _nearest(features, tree.centres[level], size)
                found[level][where] = nearest[where] + np.uint8(offset)
    return found


def _nearest(features: Tensor, centres: Tensor, size: tuple[int, int]) -> NDArray[np.uint8]:
    """``[H, W]``: the centre of the largest cosine."""
    with torch.inference_mode():
        cosines = match(features[None], centres.to(features.device)[None], 1.0)
    return ops.upsample_argmax(cosines.cpu().numpy(), size)[0]
