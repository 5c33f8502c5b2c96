"""Differentiable twin of the runtime's prototype matching (fsseg_sdk/methods/panet.py), for training.

PANet (Wang et al., ICCV 2019), eq. 1 to 3, with the pooling written as the transpose of bilinear upsampling: the same
number as pooling upsampled features, without ever making them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsampling_matrix(out_size: int, in_size: int) -> Tensor:
    """``[out_size, in_size]`` bilinear interpolation (align_corners=False) of one axis."""
    identity = torch.eye(in_size)[None]
    return F.interpolate(identity, out_size, mode="linear", align_corners=False)[0].T


def grid_weights(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[B, H, W] -> [B, h, w]``: each pixel's mass goes to the grid cells that its upsampled feature is made of."""
    rows = upsampling_matrix(mask.shape[-2], grid[0])
    columns = upsampling_matrix(mask.shape[-1], grid[1])
    return rows.T @ mask @ columns


def pool(features: Tensor, weights: Tensor, eps: float = 1e-5) -> Tensor:
    """``[B, C, h, w], [B, M, h, w] -> [B, M, C]`` weighted means."""
    total = torch.einsum("bchw,bmhw->bmc", features, weights)
    return total / (weights.sum((-2, -1))[..., None] + eps)


def match(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Tensor:
    """``[B, C, h, w], [B, P, C] -> [B, P, h, w]``: cosine x scale."""
    return scale * torch.einsum(
        "bchw,bpc->bphw", F.normalize(features, dim=1, eps=1e-8), F.normalize(prototypes, dim=-1, eps=1e-8)
    )
