"""ViT with timm's key names; the features are attention keys or tokens of chosen blocks.

Dosovitskiy et al., ICLR 2021; DINO and DINOv2 are the same net with other weights. The keys of a
plain ImageNet ViT-Ti match better than a ResNet-50's features at a quarter of its cost;
`python -m benchmarks accuracy` measures both.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.encoders.base import IMAGENET_MEAN, IMAGENET_STD, Encoder
from training.encoders.vit_blocks import Block, PatchEmbed, resample_positions

HALF = (0.5, 0.5, 0.5)
PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
SCALES = ("ls1", "ls2")


@dataclass(frozen=True)
class ViTSettings:
    """Shape of a ViT and the blocks whose keys or tokens are the features.

    grid: side of the grid of patches that the position embeddings were trained on.
    layer_scale, registers: as in DINOv2, and in DINOv2 with 4 registers.
    final_norm: tokens pass the norm after the last block, whichever block they are of.
    normalise: L2 per block, so that none outweighs another.
    pixels: normalised to -1..1 (timm's ViTs), or by ImageNet's mean (DeiT, DINO, DINOv2).
    """

    width: int = 192
    depth: int = 12
    heads: int = 3
    patch: int = 16
    grid: int = 14
    blocks: tuple[int, ...] = (6, 9, 11)
    features: Literal["keys", "tokens"] = "keys"
    layer_scale: bool = False
    registers: int = 0
    final_norm: bool = False
    normalise: bool = True
    pixels: Literal["half", "imagenet"] = "half"

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "patch", "grid"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}.")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if not self.blocks or any(not 0 <= b < self.depth for b in self.blocks):
            raise ValueError(f"blocks {self.blocks} must name blocks 0..{self.depth - 1}")
        if list(self.blocks) != sorted(set(self.blocks)):
            raise ValueError(f"blocks: expected rising numbers, got {self.blocks}.")
        if self.registers < 0:
            raise ValueError(f"registers: expected 0 or more, got {self.registers}.")
        if self.final_norm and self.features == "keys":
            raise ValueError("final_norm: expected False with keys, which have no such norm.")


class ViT(Encoder):
    """``[B, 3, H, W]`` -> ``[B, width * len(blocks), H / patch, W / patch]``.

    H and W are multiples of ``patch``; ValueError if they are not.
    """

    def __init__(self, settings: ViTSettings | None = None) -> None:
        super().__init__()
        self.settings = s = settings or ViTSettings()
        self.mean = HALF if s.pixels == "half" else IMAGENET_MEAN
        self.std = HALF if s.pixels == "half" else IMAGENET_STD
        self.cls_token = nn.Parameter(torch.zeros(1, 1, s.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, s.grid * s.grid + 1, s.width))
        if s.registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, s.registers, s.width))
        self.patch_embed = PatchEmbed(s.width, s.patch)
        last = s.blocks[-1]
        self.blocks = nn.ModuleList(
            Block(s.width, s.heads, index == last and s.features == "keys", s.layer_scale)
            for index in range(last + 1)
        )
        if s.final_norm:
            self.norm = nn.LayerNorm(s.width, eps=1e-6)
        self.stride = self.multiple = s.patch
        self.channels = s.width * len(s.blocks)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def position(self, height: int, width: int) -> Tensor:
        """Position embeddings of a ``height x width`` grid."""
        return resample_positions(self.pos_embed, height, width)

    def forward(self, image: Tensor) -> Tensor:
        s = self.settings
        if image.shape[-2] % s.patch or image.shape[-1] % s.patch:
            raise ValueError(
                f"image: expected a height and width that are multiples of {s.patch}, got "
                f"{tuple(image.shape[-2:])}. Resize it, or choose another input size."
            )
        x = self.patch_embed(image)
        batch, _, height, width = x.shape
        x = torch.cat([self.cls_token.expand(batch, -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.position(height, width)
        if s.registers:  # they have no position
            x = torch.cat([x[:, :1], self.register_tokens.expand(batch, -1, -1), x[:, 1:]], dim=1)
        features = []
        for index, block in enumerate(self.blocks):
            x, key = block(x)
            if index in s.blocks:
                tapped = key if s.features == "keys" else self.norm(x) if s.final_norm else x
                tapped = tapped[:, 1 + s.registers :].float()
                features.append(F.normalize(tapped, dim=-1, eps=1e-6) if s.normalise else tapped)
        joined = torch.cat(features, dim=-1)
        return joined.transpose(1, 2).reshape(batch, -1, height, width)

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """timm's name of the registers, DINOv2's blocks in chunks, positions without a class token
        or of another grid."""
        result = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", k): v for k, v in state.items()}
        if "reg_token" in result:
            result["register_tokens"] = result.pop("reg_token")
        positions = result.get("pos_embed")
        if positions is not None and positions.dim() == 3:
            count, side = positions.shape[1], self.settings.grid
            if math.isqrt(count) ** 2 == count:  # timm adds the class token's to the token itself
                positions = F.pad(positions.float(), (0, 0, 1, 0))
            elif math.isqrt(count - 1) ** 2 != count - 1:
                return result  # not a square grid: the shapes will differ
            result["pos_embed"] = resample_positions(positions, side, side)
        return result

    def foreign(self, key: str) -> bool:
        found = re.match(r"blocks\.(\d+)\.(.+)\.\w+$", key)
        if found:
            known = PARTS + SCALES if self.settings.layer_scale else PARTS
            return int(found[1]) >= self.settings.depth or found[2] not in known
        return key.split(".")[0] in ("blocks", "register_tokens", "patch_embed", "norm_pre")
