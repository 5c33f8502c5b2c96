"""Encoders: modules from ``[B, 3, H, W]`` to ``[B, channels, H / stride, W / stride]``."""

from training.encoders.base import Encoder
from training.encoders.registry import (
    ENCODERS,
    build_encoder,
    encoder_record,
    encoder_settings,
    load_backbone,
)
from training.encoders.weights import StateDictError, read_weights

__all__ = [
    "ENCODERS",
    "Encoder",
    "StateDictError",
    "build_encoder",
    "encoder_record",
    "encoder_settings",
    "load_backbone",
    "read_weights",
]
