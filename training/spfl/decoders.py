"""Decoders that predict pseudo labels from features, and their loss (Mei et al., eq. 4)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.datasets import IGNORE
from training.prototypes import upsampling_matrix


class Decoder(nn.Sequential):
    """``[B, C, h, w] -> [B, classes, h, w]``: two 3x3 convolutions with batch norm and ReLU, and
    one 1x1.

    The paper counts the bilinear layer in; here it is :func:`at_pixels`, part of the loss.
    """

    def __init__(self, channels: int, width: int, classes: int) -> None:
        def block(inner: int) -> list[nn.Module]:
            return [
                nn.Conv2d(inner, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]

        super().__init__(*block(channels), *block(width), nn.Conv2d(width, classes, 1))


def at_pixels(logits: Tensor, size: tuple[int, int], step: int = 1) -> Tensor:
    """``[B, K, h, w]`` upsampled bilinearly to ``size``, of which every ``step``-th row and column
    is computed, from the middle of a step on."""
    rows, columns = (
        upsampling_matrix(out, grid, logits.device)[step // 2 :: step]
        for out, grid in zip(size, logits.shape[-2:], strict=True)
    )
    return rows @ logits @ columns.T


def pseudo_loss(logits: Tensor, labels: Tensor, step: int = 1) -> Tensor:
    """Cross-entropy of one level, the mean over the pixels whose label is known.

    The paper sums over pixels and pictures; a mean has the size of the pairs' loss whatever the
    number of extra pictures, and the ratio of the two is what gamma means.

    Args:
        logits: ``[B, K, h, w]``.
        labels: ``[B, H, W] uint8`` of 0..K-1 and 255 for unknown.
        step: every so many rows and columns of pixels count.
    """
    target = labels[..., step // 2 :: step, step // 2 :: step].long()
    with torch.autocast(logits.device.type, enabled=False):
        upsampled = at_pixels(logits.float(), (labels.shape[-2], labels.shape[-1]), step)
        total = F.cross_entropy(upsampled, target, ignore_index=IGNORE, reduction="sum")
    # not the mean that torch takes: it is NaN where nothing is known
    return total / (target != IGNORE).sum().clamp_min(1)
