"""Encoders by name, each a family with settings of its own; a name and settings say it all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fsseg_sdk.errors import InputError
from fsseg_sdk.methods.settings import settings_from_json, settings_to_json
from training.encoders.base import Encoder
from training.encoders.detail import DetailSettings, ViTDetail
from training.encoders.mobilenet import MobileNetSettings, MobileNetV2
from training.encoders.resnet import ResNet, ResNetSettings
from training.encoders.vgg import VGG16, VGGSettings
from training.encoders.vit import ViT, ViTSettings
from training.encoders.weights import StateDictError, compare


@dataclass(frozen=True)
class Entry:
    """make: from settings of the type of ``settings``, which are those that the name stands for.

    fixed: settings that are part of the name, and cannot be changed under it.
    weights: the pretrained files that it loads.
    """

    make: Callable[[Any], Encoder]
    settings: Any
    weights: str
    fixed: tuple[str, ...] = ()


def _resnet(depth: int, weights: str, variant: Any = "v1", stem: Any = "7x7") -> Entry:
    settings = ResNetSettings(depth, variant=variant, stem=stem)
    return Entry(ResNet, settings, weights, ("depth",))


def _vgg(weights: str, settings: VGGSettings) -> Entry:
    return Entry(VGG16, settings, weights)


def _vit(size: str, weights: str, form: ViTSettings) -> Entry:
    width, heads = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}[size]
    return Entry(ViT, replace(form, width=width, heads=heads), weights)


KEYS = ViTSettings()
TOKENS = ViTSettings(blocks=(8,), features="tokens")
DINO = ViTSettings(blocks=(11,), pixels="imagenet")
DINOV2 = ViTSettings(
    patch=14,
    grid=37,
    blocks=(11,),
    features="tokens",
    layer_scale=True,
    final_norm=True,
    pixels="imagenet",
)
FCN = VGGSettings(("fc7",), output_stride=32, pool=2, fc="7x7", last_relu=True)
FCN_DILATED = VGGSettings(("fc7",), pool=2, fc="7x7", last_relu=True)
SMCP = VGGSettings(("fc7",), pool=2, dense_pool="removed", last_relu=True)

ENCODERS: dict[str, Entry] = {
    "vgg16": _vgg("torchvision vgg16", VGGSettings()),
    "vgg16_smcp": _vgg("torchvision vgg16; fc6 and fc7 begin as noise", SMCP),
    "fcn32s": _vgg("torchvision vgg16, with its classifier", FCN),
    "fcn_dilated": _vgg("torchvision vgg16, with its classifier", FCN_DILATED),
    "resnet18": _resnet(18, "torchvision resnet18"),
    "resnet50": _resnet(50, "v1: Keras, MSRA"),
    "resnet50_v1.5": _resnet(50, "torchvision resnet50", "v1.5"),
    "resnet50_deep": _resnet(50, "PSPNet's, as MLC and SSP use", "v1.5", "deep"),
    "resnet101": _resnet(101, "v1: Keras, MSRA"),
    "resnet101_v1.5": _resnet(101, "torchvision resnet101", "v1.5"),
    "resnet101_deep": _resnet(101, "PSPNet's, as MLC and SSP use", "v1.5", "deep"),
    "mobilenet_v2": Entry(MobileNetV2, MobileNetSettings(), "torchvision mobilenet_v2"),
    "vit_tiny_detail": Entry(ViTDetail, DetailSettings(), "timm vit_tiny_patch16_224"),
    "vit_tiny_keys": _vit("tiny", "timm vit_tiny_patch16_224", KEYS),
    "vit_small_keys": _vit("small", "timm vit_small_patch16_224", KEYS),
    "vit_base_keys": _vit("base", "timm vit_base_patch16_224", KEYS),
    "vit_tiny_tokens": _vit("tiny", "timm vit_tiny_patch16_224", TOKENS),
    "vit_small_tokens": _vit("small", "timm vit_small_patch16_224", TOKENS),
    "vit_base_tokens": _vit("base", "timm vit_base_patch16_224", TOKENS),
    "dino_small_keys": _vit("small", "DINO vits16", DINO),
    "dino_base_keys": _vit("base", "DINO vitb16", DINO),
    "dinov2_small_tokens": _vit("small", "DINOv2 vits14", DINOV2),
    "dinov2_base_tokens": _vit("base", "DINOv2 vitb14", DINOV2),
}


def encoder_settings(name: str, changes: Mapping[str, Any] | None = None) -> Any:
    """The settings that a name stands for, with changes: a (partial) table of plain values.

    Raises:
        ValueError: no encoder has that name, or a change is unknown, of the wrong type or out of
            range.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder: expected one of {sorted(ENCODERS)}, got {name!r}")
    entry = ENCODERS[name]
    whole = {**settings_to_json(entry.settings), **(changes or {})}
    try:
        settings = settings_from_json(type(entry.settings), whole, f"settings of {name}")
    except InputError as error:  # its remedy speaks of bundles
        raise ValueError(
            f"{error.argument}: expected {error.expected}, got {error.got}. Correct the setting."
        ) from error
    except ValueError as error:
        raise ValueError(f"settings of {name}: {error}") from error
    for field in entry.fixed:
        own, changed = getattr(entry.settings, field), getattr(settings, field)
        if own != changed:
            raise ValueError(
                f"settings of {name}.{field}: expected {own}, got {changed}. "
                "Name the encoder that has it."
            )
    return settings


def encoder_record(name: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a checkpoint stores: ``{"name": ..., "settings": {...}}``, every setting written out.

    ``build_encoder(**record)`` builds the same encoder, whatever the defaults are by then.
    """
    return {"name": name, "settings": settings_to_json(encoder_settings(name, changes))}


def build_encoder(name: str, settings: Mapping[str, Any] | None = None) -> Any:
    """A new encoder of that name, with its initial weights.

    Args:
        settings: what to change of the settings that the name stands for, as plain values.

    Raises:
        ValueError: as encoder_settings().
    """
    checked = encoder_settings(name, settings)
    encoder = ENCODERS[name].make(checked)
    encoder.name = name
    return encoder


def load_backbone(encoder: Any, state: dict[str, Tensor]) -> None:
    """Load pretrained weights (timm, DINO or torchvision names) into an encoder's backbone.

    Raises:
        ValueError: they are of another network; says which tensors differ, and which encoders
            of this registry they fit, with their default settings.
    """
    try:
        encoder.load_imagenet(state)
    except StateDictError as error:
        names = fitting(state)
        remedy = (
            f"They fit {', '.join(names)}."
            if names
            else "They fit no encoder with its default settings."
        )
        raise StateDictError(f"{error} {remedy}") from None


def fitting(state: dict[str, Tensor]) -> list[str]:
    """Names of the encoders whose default forms a state dict fits; tensors are not read."""
    shapes = {key: torch.empty_like(value, device="meta") for key, value in state.items()}
    names = []
    with torch.device("meta"):
        for name in ENCODERS:
            encoder = build_encoder(name)
            if not compare(getattr(encoder, "vit", encoder), shapes)[0]:
                names.append(name)
    return names
