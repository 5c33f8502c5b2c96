"""What can be set of OSLSM's training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class OslsmSettings:
    """
    conditioner_rate: factor on the learning rate of the conditioner's trunk, and of a classifier
        that comes from a file; what is new learns at the full rate.
    hashed: numbers that the conditioner's last layer gives; the hash makes the weights of them.
    hash_seed: of the hash's draw.
    side: pixels that the conditioner sees of a picture, each way; 224 is what ImageNet's networks
        were trained on.
    head: what ends the conditioner. "pooled": the mean of the trunk's features and a new layer.
        "classifier": VGG-16's own fc6, fc7 and fc8, from a weights file that has them.
    pooling: of "pooled": the mean over the cells that show the class, or over all cells.
    start: of "pooled": the new layer begins such that the hashed weights are the support's own
        mean feature, or as noise.
    standardise: the classifier sees features of mean 0 and variance 1, channel by channel. What
        that takes is folded into its weights.
    sharpness: the part of a logit that features have is their mean over channels, times this.
    bias: with start "support", of every classifier at the beginning: most of a picture is not the
        class.
    balanced: both sides of a query's mask weigh alike in the loss; False is eq. 3.
    both_ways: each picture of a pair is the support of the other; False is the paper's one way.
    """

    conditioner_rate: float = 0.1
    hashed: int = 1000
    hash_seed: int = 0
    side: int = 224
    head: Literal["pooled", "classifier"] = "pooled"
    pooling: Literal["visible", "all"] = "visible"
    start: Literal["support", "noise"] = "support"
    standardise: bool = True
    sharpness: float = 16.0
    bias: float = 0.0
    balanced: bool = False
    both_ways: bool = True

    def __post_init__(self) -> None:
        for name in ("conditioner_rate", "sharpness", "bias"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name}: expected a finite number, got {getattr(self, name)}.")
        for name in ("hashed", "side", "sharpness"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}.")
        for name in ("conditioner_rate", "hash_seed"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}.")
        if self.head == "classifier" and (self.side, self.hashed) != (224, 1000):
            raise ValueError(
                "head: 'classifier' expects side = 224 and hashed = 1000, which VGG-16's "
                f"classifier is made for, got {self.side} and {self.hashed}."
            )
