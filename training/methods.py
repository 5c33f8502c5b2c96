"""Trainable methods by name.

A learner is a module with an ``encoder``, a ``forward(pixels, masks)`` that is the loss, and
``runtime()``, the method's entry in a manifest.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from training.panet import Panet, PanetSettings


class TrainableMethod(NamedTuple):
    """settings: a frozen dataclass. learner: made from an encoder and settings."""

    settings: type
    learner: Any


METHODS: dict[str, TrainableMethod] = {"panet": TrainableMethod(PanetSettings, Panet)}
