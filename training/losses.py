"""Losses of logits on the grid against masks at the picture's size."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.datasets import IGNORE


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Mean over the pixels that are not ignored; ``[B, P, H, W]``, ``[B, H, W]`` of 0..P-1, 255."""
    # not the mean that torch takes: it is NaN where every pixel is ignored, and ends the run
    counted = (target != IGNORE).sum().clamp_min(1)
    return F.cross_entropy(logits, target, ignore_index=IGNORE, reduction="sum") / counted


def segmentation_loss(
    logits: Tensor, masks: Tensor, known: Tensor, dice_weight: float = 0.5
) -> Tensor:
    """Cross-entropy at the masks' size, plus soft Dice, which gives marks of a few pixels a voice.

    Args:
        logits: ``[B, P, h, w]``, background first.
        masks: ``[B, H, W]`` of 0..P-1 and 255.
        known: ``[B, P]`` bool: ways that the support shows. Pixels of other ways are ignored, and
            their logits have no part.
    """
    logits = logits.float().masked_fill(~known[:, :, None, None], -1e4)
    upsampled = F.interpolate(logits, masks.shape[-2:], mode="bilinear", align_corners=False)
    ways = torch.arange(known.shape[1], device=masks.device)
    one_hot = masks[:, None] == ways[None, :, None, None]
    asked = one_hot & known[:, :, None, None]
    target = torch.where(asked.any(1), masks.long(), IGNORE)
    loss = cross_entropy(upsampled, target)
    if dice_weight == 0:
        return loss
    probability = torch.softmax(upsampled, 1) * (target != IGNORE)[:, None]
    truth = asked.float()
    overlap = (probability * truth).sum((2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)
    counted = known.clone()
    counted[:, 0] = False
    return loss + dice_weight * (dice * counted).sum() / counted.sum().clamp_min(1)
