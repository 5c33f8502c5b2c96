"""Transformer blocks with timm's key names that hand out their attention's keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention that hands out its keys; ``keys_only``: and computes no output."""

    def __init__(self, width: int, heads: int, keys_only: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        if not keys_only:
            self.proj = nn.Linear(width, width)

    def keys(self, x: Tensor) -> Tensor:
        """Keys of all heads, concatenated: ``[B, N, width]``, without queries and values."""
        width = x.shape[-1]
        return F.linear(x, self.qkv.weight[width : 2 * width], self.qkv.bias[width : 2 * width])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attention's output and the keys, both ``[B, N, width]``."""
        batch, tokens, width = x.shape
        query, key, value = self.qkv(x).chunk(3, dim=-1)

        def split(t: Tensor) -> Tensor:
            return t.reshape(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(split(query), split(key), split(value))
        return self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width)), key


class Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A factor per channel on a branch, as in DINOv2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Block(nn.Module):
    """Pre-norm transformer block that hands out its attention's keys.

    ``keys_only``: the last tapped block. Nothing uses its output, so it hands its input on.
    """

    def __init__(
        self, width: int, heads: int, keys_only: bool = False, layer_scale: bool = False
    ) -> None:
        super().__init__()
        self.keys_only = keys_only
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, keys_only)
        if not keys_only:
            self.norm2 = nn.LayerNorm(width, eps=1e-6)
            self.mlp = Mlp(width)
            self.ls1 = LayerScale(width) if layer_scale else nn.Identity()
            self.ls2 = LayerScale(width) if layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys_only:
            return x, self.attn.keys(self.norm1(x))
        mixed, key = self.attn(self.norm1(x))
        x = x + self.ls1(mixed)
        return x + self.ls2(self.mlp(self.norm2(x))), key


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


def resample_positions(embedding: Tensor, height: int, width: int) -> Tensor:
    """Position embeddings ``[1, 1 + g * g, C]`` on another grid: ``[1, 1 + height * width, C]``.

    Bicubic with antialiasing, as in timm; the class token's stays. DINO's own code resamples
    without antialiasing, which differs a little.
    """
    side = round((embedding.shape[1] - 1) ** 0.5)
    if (height, width) == (side, side):
        return embedding
    token, grid = embedding[:, :1], embedding[:, 1:]
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, (height, width), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([token, grid.flatten(2).transpose(1, 2).to(token.dtype)], dim=1)
