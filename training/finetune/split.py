"""An encoder cut before its last layers: the trunk stays as it is, the tail is tuned."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.encoders.base import Encoder
from training.encoders.resnet import ResNet
from training.encoders.vgg import VGG16
from training.encoders.vit import ViT


class Trunk(nn.Module):
    """What comes before the tail, with the facts that a graph and a protocol ask an encoder for."""

    def __init__(self, encoder: Encoder, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder, self._run = encoder, run
        self.mean, self.std, self.multiple = encoder.mean, encoder.std, encoder.multiple

    def forward(self, image: Tensor) -> Tensor:
        return self._run(self.encoder, image)


class KeysTail(nn.Module):
    """The keys of a ViT's last block, which every token makes of itself alone.

    ``[B, earlier + width, h, w] -> [B, earlier + width, h, w]``: features of earlier blocks pass
    through, tokens become keys.
    """

    def __init__(self, encoder: ViT) -> None:
        super().__init__()
        self.width, self.normalise = encoder.settings.width, encoder.settings.normalise
        self.block = encoder.blocks[-1]

    def forward(self, x: Tensor) -> Tensor:
        earlier, tokens = x[:, : -self.width], x[:, -self.width :]
        block: Any = self.block
        keys = block.attn.keys(block.norm1(tokens.flatten(2).transpose(1, 2)))
        if self.normalise:
            keys = F.normalize(keys, dim=-1, eps=1e-6)
        found = keys.transpose(1, 2).reshape(tokens.shape)
        return torch.cat([earlier, found], 1)


class ResNetTail(nn.Module):
    """The last block of a ResNet."""

    def __init__(self, encoder: ResNet) -> None:
        super().__init__()
        self.block = encoder.get_submodule(encoder.layers[-1])[-1]  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.block(x)
        return found


def _resnet_trunk(encoder: ResNet, image: Tensor) -> Tensor:
    x = image
    for number in range(1, encoder.depth_of_stem + 1):
        conv = encoder.get_submodule(f"conv{number}")
        x = encoder.relu(encoder.get_submodule(f"bn{number}")(conv(x)))
    x = encoder.maxpool(x)
    for name in encoder.layers[:-1]:
        x = encoder.get_submodule(name)(x)
    for block in encoder.get_submodule(encoder.layers[-1])[:-1]:  # type: ignore[index]
        x = block(x)
    return x


def _vgg_cut(encoder: VGG16) -> int:
    """Place in the path where fc6 begins; of a net without it, that of the last convolution."""
    last = [n for n, path in enumerate(encoder.path) if path.startswith(("classifier.", "fc6"))]
    if last:
        return last[0]
    convs = [
        n for n, p in enumerate(encoder.path) if isinstance(encoder.get_submodule(p), nn.Conv2d)
    ]
    return convs[-1]


def _vgg_trunk(encoder: VGG16, image: Tensor) -> Tensor:
    x = image
    for path in encoder.path[: _vgg_cut(encoder)]:
        x = encoder.get_submodule(path)(x)
    return x


def _vit_trunk(encoder: ViT, image: Tensor) -> Tensor:
    """Features of the earlier blocks, then the tokens that the last block gets."""
    s = encoder.settings
    x = encoder.patch_embed(image)
    batch, _, height, width = x.shape
    x = torch.cat([encoder.cls_token.expand(batch, -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    x = x + encoder.position(height, width)
    if s.registers:
        more = encoder.register_tokens.expand(batch, -1, -1)
        x = torch.cat([x[:, :1], more, x[:, 1:]], dim=1)
    parts = []
    for index, block in enumerate(list(encoder.blocks)[:-1]):
        x, key = block(x)
        if index in s.blocks:
            tapped = key[:, 1 + s.registers :].float()
            parts.append(F.normalize(tapped, dim=-1, eps=1e-6) if s.normalise else tapped)
    parts.append(x[:, 1 + s.registers :].float())
    return torch.cat(parts, dim=-1).transpose(1, 2).reshape(batch, -1, height, width)


def split(encoder: Any) -> tuple[Trunk, nn.Module]:
    """``tail(trunk(image))`` is ``encoder(image)``; the tail is a copy, in evaluation mode.

    ResNets: the last block. VGG-16: fc6 and fc7, or the last convolution of a net without them.
    ViTs: the last block, as far as its keys need it.

    Raises:
        ValueError: an encoder that cannot be cut so: several taps of a convolutional net, tokens
            as features, or another kind.
    """
    taps = len(getattr(encoder.settings, "taps", ("one",)))
    trunk: Trunk | None = None
    if isinstance(encoder, ResNet) and taps == 1:
        trunk, tail = Trunk(encoder, _resnet_trunk), ResNetTail(encoder)
    elif isinstance(encoder, VGG16) and taps == 1:
        layers = [encoder.get_submodule(path) for path in encoder.path[_vgg_cut(encoder) :]]
        trunk, tail = Trunk(encoder, _vgg_trunk), nn.Sequential(*layers)  # type: ignore[assignment]
    elif isinstance(encoder, ViT) and encoder.settings.features == "keys":
        trunk, tail = Trunk(encoder, _vit_trunk), KeysTail(encoder)  # type: ignore[assignment]
    if trunk is None:
        raise ValueError(
            "method finetune: expected a ResNet or a VGG-16 with one tap, or a ViT whose features "
            f"are keys, got {encoder.name or type(encoder).__name__}. Take another encoder, or "
            "the method logreg, which tunes no layer."
        )
    return trunk.eval(), deepcopy(tail).eval()
