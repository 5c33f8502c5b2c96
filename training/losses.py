"""Losses on logits ``[B, 2, h, w]`` against masks ``[B, H, W]`` of 0, 1 and 255 (ignored)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.datasets import IGNORE


def segmentation_loss(logits: Tensor, masks: Tensor, dice_weight: float = 0.5) -> Tensor:
    """Cross-entropy at the masks' size, plus a soft Dice term, without which marks of a few pixels have no voice."""
    upsampled = F.interpolate(logits.float(), masks.shape[-2:], mode="bilinear", align_corners=False)
    cross_entropy = F.cross_entropy(upsampled, masks.long(), ignore_index=IGNORE)
    if dice_weight == 0:
        return cross_entropy
    known = (masks != IGNORE).float()
    truth = (masks == 1).float()
    probability = torch.softmax(upsampled, 1)[:, 1] * known
    overlap = (probability * truth).sum((1, 2))
    dice = 1 - (2 * overlap + 1) / (probability.sum((1, 2)) + truth.sum((1, 2)) + 1)
    return cross_entropy + dice_weight * dice.mean()
