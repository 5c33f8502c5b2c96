"""Encoders by name: modules from ``[B, 3, H, W]`` to ``[B, channels, H / stride, W / stride]``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from training.encoders.detail import ViTDetail
from training.encoders.mobilenet import MobileNetV2
from training.encoders.resnet import resnet50
from training.encoders.vit import ViTKeys

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "vit_tiny_keys": ViTKeys,
    "vit_tiny_detail": ViTDetail,
    "resnet50": resnet50,
    "mobilenet_v2": MobileNetV2,
}


def build_encoder(name: str) -> Any:
    """A new encoder of that name, with its initial weights.

    Raises:
        ValueError: no encoder has that name.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder: expected one of {sorted(ENCODERS)}, got {name!r}")
    return ENCODERS[name]()


def load_backbone(encoder: Any, state: dict[str, Tensor]) -> None:
    """Load ImageNet weights (timm or torchvision names) into an encoder's backbone."""
    backbone = encoder.vit if isinstance(encoder, ViTDetail) else encoder
    backbone.load_imagenet(state)
