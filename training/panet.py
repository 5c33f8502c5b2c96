"""PANet: prototypes of one picture must segment the other, both ways.

Wang et al., ICCV 2019. Both directions use the true masks (the paper's alignment regularisation
uses the predicted mask of the query for the way back).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.datasets import IGNORE
from training.learner import Learner
from training.losses import segmentation_loss
from training.prototypes import background_parts, grid_weights, panet_logits, pool


@dataclass(frozen=True)
class PanetSettings:
    """scale: of the cosines (20 in PANet, 10 in MLC). background_parts: prototypes of the
    background. dice_weight: of the soft Dice term beside the cross-entropy; 0 is the paper's."""

    scale: float = 20.0
    background_parts: int = 1
    dice_weight: float = 0.5

    def __post_init__(self) -> None:
        for name in ("scale", "background_parts"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.dice_weight < 0:
            raise ValueError(f"dice_weight must be 0 or more, got {self.dice_weight}")


class Panet(Learner):
    """An encoder and the loss of its episodes; nothing but the encoder is trained."""

    name = "panet"

    def __init__(self, encoder: Any, settings: PanetSettings) -> None:
        super().__init__(encoder)
        self.settings, self.background_parts = settings, settings.background_parts

    def forward(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Loss of ``pixels [B, 2, S, S, 3] uint8`` and ``masks [B, 2, S, S] uint8`` (0, ways, 255):
        the first picture segments the second, and back."""
        features = self.features(pixels.flatten(0, 1))
        flat = masks.flatten(0, 1)
        ways = max(1, int(flat.masked_fill(flat == IGNORE, 0).max()))
        height, width = features.shape[-2:]
        # prototypes and logits want every digit, whatever the encoder was run in
        with torch.autocast(pixels.device.type, enabled=False):
            weights = torch.stack(
                [grid_weights((flat == way).float(), (height, width)) for way in range(ways + 1)], 1
            )
            # the first picture's prototypes meet the second picture's features, and the other way
            other = torch.arange(len(flat), device=flat.device) ^ 1
            scene = background_parts(features, weights[:, 0], self.background_parts)[other]
            prototypes = pool(features, weights[:, 1:])[other]
            known = (weights.sum((-2, -1)) > 0)[other]
            logits = panet_logits(features, scene, prototypes, self.settings.scale)
            return segmentation_loss(logits, flat, known, self.settings.dice_weight)

    def runtime(self) -> dict[str, Any]:
        """What the runtime must know: a manifest's ``method``."""
        own = {"scale": self.settings.scale, "background_parts": self.background_parts}
        return {"name": self.name, "settings": own}
