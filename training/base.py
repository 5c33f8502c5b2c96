"""The base network: every pixel of single pictures is told background or one of the base classes.

OSLSM (Shaban et al., BMVC 2017), section 6, "Base Classifiers": FCN-32s fine-tuned to the 16
classes of a fold, whose features then feed 1-NN, logistic regression and fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.datasets import Sample
from training.learner import Example, Learner, Setup
from training.losses import cross_entropy
from training.nearest import nearest_logits
from training.settings import RunSettings

MOST_CLASSES = 254  # labels are uint8, and 255 is unknown


@dataclass(frozen=True)
class BaseSettings:
    """dropout: of whole channels before the classifier."""

    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a share in [0, 1), got {self.dropout}.")


class Base(Learner):
    """An encoder and a classifier of its cells. The classifier is shipped along, as what else was
    learned; the runtime's methods take the encoder alone.

    Args:
        classes: ids of the classes beside the background.
    """

    name = "base"

    def __init__(self, encoder: Any, settings: BaseSettings, classes: Sequence[int]) -> None:
        super().__init__(encoder)
        self.own, self.classes = settings, tuple(classes)
        # without the norm the rate that suits would depend on how large an encoder's features are
        norm = nn.BatchNorm2d(encoder.channels, affine=False)
        self.classifier = nn.Sequential(norm, nn.Conv2d(encoder.channels, 1 + len(classes), 1))

    def forward(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Cross-entropy of ``pixels [B, 2, S, S, 3] uint8`` against ``masks [B, 2, 2, S, S]
        uint8``, whose second layer holds classes from 1, 0 and 255. That two pictures show the
        same class only says how often a class is drawn."""
        features = self.features(pixels.flatten(0, 1))
        labels = masks[:, :, 1].flatten(0, 1).long()
        with torch.autocast(pixels.device.type, enabled=False):
            dropped = F.dropout2d(features, self.own.dropout, self.training)
            logits = self.classifier(dropped)
            large = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
            return cross_entropy(large, labels)

    def respond(self, asked: Tensor, example: Example) -> Tensor:
        """1-NN, the method that the checkpoint begins with in the runtime."""
        return nearest_logits(asked, example.features, example.masks)

    def runtime(self) -> dict[str, Any]:
        return {"name": "nearest", "settings": {"panet": {}}}


def set_up_base(
    encoder: Any,
    settings: RunSettings[BaseSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    """The learner, for the classes that ``samples`` show: in a fold its base classes, else all.

    Raises:
        ValueError: no labelled pictures, more than one set of classes or too many, or episodes
            without labels.
    """
    if max(settings.episodes.kinds[1:]) > 0:
        raise ValueError(
            "episodes.kinds: expected pictures of labelled classes alone, got "
            f"{settings.episodes.kinds}. Set it to [1, 0, 0]."
        )
    sets = sorted({sample.dataset for sample in samples})
    found = sorted({identity for sample in samples for identity in sample.classes})
    if len(sets) != 1 or not found or found[0] < 1 or found[-1] > MOST_CLASSES:
        got = f"ids {found[0]} to {found[-1]} of {', '.join(sets)}" if found else "none"
        raise ValueError(
            f"data.sets: expected classes of one data set with ids of 1 to {MOST_CLASSES}, got "
            f"{got}. Name one labelled set."
        )
    return Setup(Base(encoder, settings.own, found), provenance={"classes": found})
