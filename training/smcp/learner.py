"""SMCP's learner: an encoder and a head that segment by one prototype, and know the base classes.

SMCP (Chen et al.), sections III-B to III-G.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.datasets import Sample
from training.learner import Learner, Setup
from training.losses import cross_entropy, segmentation_loss
from training.prototypes import grid_weights, pool
from training.settings import RunSettings
from training.smcp.head import Classifier, Head
from training.smcp.settings import SmcpSettings

MOST_CLASSES = 254  # labels are uint8, and 255 is unknown


class Smcp(Learner):
    """Encoder, head, and the classifier of base classes, which nothing but training needs.

    Args:
        classes: ids of the base classes; without a weight of their loss they are not asked for.
    """

    name = "smcp"
    helpers = ("base_classes",)

    def __init__(self, encoder: Any, settings: SmcpSettings, classes: Sequence[int] = ()) -> None:
        super().__init__(encoder)
        self.own = settings
        self.head = Head(encoder.channels, settings.head)
        if settings.multi_class_weight:
            if not classes:
                raise ValueError(
                    "multi_class_weight: expected classes to tell apart, got none. Train on "
                    "labelled pictures, or set the weight to 0."
                )
            self.classes = tuple(classes)
            self.base_classes = Classifier(encoder.channels, 1 + len(classes))

    def forward(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Eq. 5 of ``pixels [B, 2, S, S, 3] uint8``, support and query, and of ``masks``: ``[B, 2,
        S, S] uint8`` of 0, 1 and 255; with classes ``[B, 2, 2, S, S]``, their labels second."""
        ways = masks[:, :, 0] if self.classes else masks
        features = self.features(pixels.flatten(0, 1))
        shown = self._prototypes(features[::2], ways[:, 0])
        # the query alone, or the support as well, through the same head
        pictures = (0, 1) if self.own.self_prototype else (1,)
        shares = self.head.prototype_share(shown)
        known = (ways[:, 0] == 1).flatten(1).any(1)
        known = torch.stack([torch.ones_like(known), known], 1)
        parts: dict[str, Tensor] = {}
        for picture in reversed(pictures):
            query = self.head.query_share(features[picture::2])
            logits = self.head.from_shares(query, shares)
            name = ("support", "query")[picture]
            with torch.autocast(pixels.device.type, enabled=False):
                parts[name] = segmentation_loss(logits, ways[:, picture], known, dice_weight=0.0)
        loss = torch.stack(list(parts.values())).sum()
        if self.classes:
            parts["classes"] = self._class_loss(features, masks[:, :, 1])
            loss = loss + self.own.multi_class_weight * parts["classes"]
        self.figures = {name: value.detach() for name, value in parts.items()}
        return loss

    def _prototypes(self, features: Tensor, masks: Tensor) -> Tensor:
        """``[B, C]``, eq. 1, of ``[B, C, h, w]`` and ``[B, S, S]``."""
        with torch.autocast(features.device.type, enabled=False):
            weights = grid_weights((masks == 1).float(), (features.shape[-2], features.shape[-1]))
            return pool(features, weights[:, None])[:, 0]

    def _class_loss(self, features: Tensor, labels: Tensor) -> Tensor:
        """Eq. 3 of ``[2B, C, h, w]`` and ``[B, 2, S, S]``: that of supports and that of queries."""
        logits = self.base_classes(features).float()
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
        both = [cross_entropy(logits[n::2], labels[:, n].long()) for n in (0, 1)]
        return torch.stack(both).sum()

    def answer(self, asked: Tensor, scene: Tensor, shown: Tensor, size: tuple[int, int]) -> Tensor:
        """As the runtime's: the second pass, guided by the mean of the support's prototype and that
        of what the first pass found; section III-G. A class's score is its logit above that of the
        background, whose own is 0."""
        query = self.head.query_share(asked)
        first = self.head.from_shares(query, self.head.prototype_share(shown[0]))
        upsampled = F.interpolate(first, size, mode="bilinear", align_corners=False)
        found = (upsampled[:, 1] > upsampled[:, 0]).float()
        weights = grid_weights(found, (asked.shape[-2], asked.shape[-1]))
        pseudo = pool(asked, weights[None])[0]  # eq. 6
        again = self.head.from_shares(query, self.head.prototype_share((shown[0] + pseudo) / 2))
        # nothing found: there is no pseudo-prototype
        empty = (weights.sum((-2, -1)) == 0)[:, None, None, None]
        logits = torch.where(empty, first, again)
        scores = logits[:, 1] - logits[:, 0]
        return torch.cat([torch.zeros_like(scores[:1]), scores])[None]

    def runtime(self) -> dict[str, Any]:
        settings = {
            # presence is judged by a match of the same prototypes
            "panet": {"scale": 20.0, "background_parts": self.background_parts},
            "passes": 2,
            "guide": "fused",
            "fusion": self.own.fusion,
        }
        return {"name": self.name, "settings": settings}


def set_up_smcp(
    encoder: Any,
    settings: RunSettings[SmcpSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    """The learner, its base classes being those that ``samples`` show.

    Raises:
        ValueError: episodes may have several classes, or the base classes are not those of one set.
    """
    if settings.episodes.several > 0:
        raise ValueError(
            "several: expected episodes of one class, since the head takes one prototype, got a "
            f"share of {settings.episodes.several} with more. Set it to 0."
        )
    classes = base_classes(samples) if settings.own.multi_class_weight else ()
    return Setup(Smcp(encoder, settings.own, classes))


def base_classes(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Ids of the classes that pictures of one set show, in rising order.

    Raises:
        ValueError: they are of several sets, whose ids mean different things, or too many.
    """
    sets = sorted({sample.dataset for sample in samples})
    found = tuple(sorted({identity for sample in samples for identity in sample.classes}))
    if len(sets) > 1 or (found and (found[0] < 1 or found[-1] > MOST_CLASSES)):
        got = f"ids {found[0]} to {found[-1]} of {', '.join(sets)}" if found else "none"
        raise ValueError(
            f"multi_class_weight: expected classes of one data set with ids of 1 to {MOST_CLASSES},"
            f" got {got}. Name one set in data.sets, or set the weight to 0."
        )
    return found
