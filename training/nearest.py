"""The nearest cell of a labelled picture, in torch: the twin of fsseg_sdk/methods/nearest.py for
what is watched while training.

OSLSM (Shaban et al., BMVC 2017), section 6: base classifiers and the Siamese network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.prototypes import grid_weights


def cell_labels(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[B, h, w]`` int64: 1 and 0 for cells of the class and of the background, -1 for neither.

    A cell is of the class if more of its weight is, or, where none is, if the largest share of all
    is its own; the same for the background.

    Args:
        masks: ``[B, 2, H, W]`` float32 of 0 and 1, background and class; neither where unknown.
        grid: (h, w).
    """
    background, shown = grid_weights(masks, grid).flatten(2).unbind(1)
    both = background + shown
    labels = torch.full_like(both, -1, dtype=torch.int64)
    labels[shown > background], labels[background > shown] = 1, 0
    for value, own in ((1, shown), (0, background)):
        share = own / both.clamp_min(1e-12)
        lacking = ~(labels == value).any(1) & (own > 0).any(1)
        labels[lacking[:, None] & (share == share.amax(1, keepdim=True)) & (own > 0)] = value
    return labels.reshape(-1, *grid)


def nearest_logits(asked: Tensor, features: Tensor, masks: Tensor, scale: float = 20.0) -> Tensor:
    """``[1, C, h, w]`` and a labelled picture's ``[1, C, h, w]``, ``[1, 2, H, W]`` -> ``[1, 2, h,
    w]``: the largest cosine of each cell with the background's cells and with the class's."""
    height, width = asked.shape[-2:]
    labels = cell_labels(masks, (features.shape[-2], features.shape[-1]))[0].flatten()
    own = F.normalize(asked[0].flatten(1), dim=0, eps=1e-8)
    others = F.normalize(features[0].flatten(1), dim=0, eps=1e-8)
    best = []
    for value in (0, 1):
        rows = others[:, labels == value]
        found = (own.T @ rows).amax(1) if rows.shape[1] else own.new_full((own.shape[1],), -1.0)
        best.append(scale * found)
    return torch.stack(best).reshape(1, 2, height, width)
