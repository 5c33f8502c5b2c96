"""ViT with timm's key names; the features are the attention keys of chosen blocks.

The keys of a plain ImageNet ViT-Ti match better than a ResNet-50's features at a quarter of its
cost; `python -m benchmarks accuracy` measures both.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ViTSettings:
    """Shape of a plain ViT and the blocks whose attention keys are the features."""

    width: int = 192
    depth: int = 12
    heads: int = 3
    patch: int = 16
    grid: int = 14
    blocks: tuple[int, ...] = (6, 9, 11)

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not self.blocks or any(not 0 <= b < self.depth for b in self.blocks):
            raise ValueError(f"blocks {self.blocks} must name blocks 0..{self.depth - 1}")


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


class Block(nn.Module):
    """Pre-norm transformer block that hands out its attention's keys.

    ``keys_only``: the last tapped block. Nothing uses its output, so it hands its input on.
    """

    def __init__(self, width: int, heads: int, keys_only: bool = False) -> None:
        super().__init__()
        self.keys_only = keys_only
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, keys_only)
        if not keys_only:
            self.norm2 = nn.LayerNorm(width, eps=1e-6)
            self.mlp = Mlp(width)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys_only:
            return x, self.attn.keys(self.norm1(x))
        mixed, key = self.attn(self.norm1(x))
        x = x + mixed
        return x + self.mlp(self.norm2(x)), key


class PatchEmbed(nn.Module):
    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class ViTKeys(nn.Module):
    """``[B, 3, H, W]`` -> ``[B, width * len(blocks), H / patch, W / patch]``.

    Each block's keys are L2-normalised before they are joined, so that none outweighs another.
    """

    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def __init__(self, settings: ViTSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or ViTSettings()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, s.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, s.grid * s.grid + 1, s.width))
        self.patch_embed = PatchEmbed(s.width, s.patch)
        last = max(s.blocks)
        self.blocks = nn.ModuleList(
            Block(s.width, s.heads, index == last) for index in range(last + 1)
        )
        self.stride = s.patch
        self.channels = s.width * len(s.blocks)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def position(self, height: int, width: int) -> Tensor:
        """Position embeddings of a ``height x width`` grid, bicubic as in timm."""
        if (height, width) == (self.settings.grid, self.settings.grid):
            return self.pos_embed
        cls, grid = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        side = self.settings.grid
        grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
        grid = F.interpolate(
            grid, (height, width), mode="bicubic", antialias=True, align_corners=False
        )
        return torch.cat([cls, grid.flatten(2).transpose(1, 2).to(cls.dtype)], dim=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch_embed(image)
        batch, _, height, width = x.shape
        x = torch.cat([self.cls_token.expand(batch, -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.position(height, width)
        features = []
        for index, block in enumerate(self.blocks):
            x, key = block(x)
            if index in self.settings.blocks:
                features.append(F.normalize(key[:, 1:].float(), dim=-1, eps=1e-6))
        joined = torch.cat(features, dim=-1)
        return joined.transpose(1, 2).reshape(batch, -1, height, width)

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Load a timm-style ViT state dict; what this shortened model lacks is left out."""
        own = self.state_dict()
        missing = sorted(k for k in own if k not in state)
        if missing:
            raise ValueError(f"the state dict lacks {missing[:3]} ({len(missing)} tensors)")
        self.load_state_dict({k: state[k].float() for k in own})
