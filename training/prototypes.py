"""Differentiable twin of the runtime's prototype matching (fsseg_sdk/methods/panet.py).

PANet (Wang et al., ICCV 2019), eq. 1 to 3, with the pooling written as the transpose of bilinear
upsampling: the same number as pooling upsampled features, without ever making them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsampling_matrix(out_size: int, in_size: int, device: torch.device | str = "cpu") -> Tensor:
    """``[out_size, in_size]`` bilinear interpolation (align_corners=False) of one axis."""
    identity = torch.eye(in_size, device=device)[None]
    return F.interpolate(identity, out_size, mode="linear", align_corners=False)[0].T


def grid_weights(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """``[B, H, W] -> [B, h, w]``: a pixel's mass goes to the cells that make its feature."""
    rows = upsampling_matrix(mask.shape[-2], grid[0], mask.device)
    columns = upsampling_matrix(mask.shape[-1], grid[1], mask.device)
    return rows.T @ mask @ columns


def pool(features: Tensor, weights: Tensor, eps: float = 1e-5) -> Tensor:
    """``[B, C, h, w], [B, M, h, w] -> [B, M, C]`` weighted means."""
    total = torch.einsum("bchw,bmhw->bmc", features, weights)
    return total / (weights.sum((-2, -1))[..., None] + eps)


def match(features: Tensor, prototypes: Tensor, scale: float = 20.0) -> Tensor:
    """``[B, C, h, w], [B, P, C] -> [B, P, h, w]``: cosine x scale."""
    return scale * torch.einsum(
        "bchw,bpc->bphw",
        F.normalize(features, dim=1, eps=1e-8),
        F.normalize(prototypes, dim=-1, eps=1e-8),
    )


def panet_logits(features: Tensor, scene: Tensor, classes: Tensor, scale: float = 20.0) -> Tensor:
    """``[B, C, h, w], [B, K, C], [B, N, C] -> [B, 1 + N, h, w]``: the best of the background's
    parts, then the classes."""
    background = match(features, scene, scale).amax(1, keepdim=True)
    return torch.cat([background, match(features, classes, scale)], 1)


def background_parts(features: Tensor, weights: Tensor, parts: int, steps: int = 10) -> Tensor:
    """``[B, C, h, w], [B, h, w] -> [B, parts, C]``: spherical k-means of the background's cells.

    Which cell belongs to which part is a constant for the gradient; the parts are weighted
    means, as in :func:`pool`. In the place of an empty part stands the heaviest once more, which
    changes no largest cosine.
    """
    centres = pool(features, weights[:, None])
    if parts == 1:
        return centres
    rows = torch.arange(len(features), device=features.device)
    with torch.no_grad():
        # a cell that the region only touches shows something else, too: it starts no part
        inside = weights * (weights >= 0.9 * weights.amax((-2, -1), keepdim=True))
        while centres.shape[1] < parts:
            best = match(features, centres, 1.0).amax(1)
            furthest = ((1 - best) * inside).flatten(1).argmax(1)
            chosen = features.flatten(2)[rows, :, furthest]
            centres = torch.cat([centres, chosen[:, None]], 1)
        for _ in range(steps):
            mine = _assigned(features, weights, centres)
            found = pool(features, mine)
            centres = torch.where((mine.sum((-2, -1)) > 0)[..., None], found, centres)
        mine = _assigned(features, weights, centres)
    found, mass = pool(features, mine), mine.sum((-2, -1))
    heaviest = found[rows, mass.argmax(1)][:, None]
    return torch.where((mass > 0)[..., None], found, heaviest)


def _assigned(features: Tensor, weights: Tensor, centres: Tensor) -> Tensor:
    """``[B, parts, h, w]``: each cell's weight, given to the centre most like it."""
    nearest = match(features, centres, 1.0).argmax(1)
    one_hot = F.one_hot(nearest, centres.shape[1]).permute(0, 3, 1, 2)
    return one_hot * weights[:, None]
