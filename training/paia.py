"""PAIA: prototypes that are sharpened by pictures with image-level labels, trained end to end.

PAIA (2021), section 3. What trainer and runtime compute alike is in training/fusion.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.datasets import IGNORE
from training.fusion import Fused, ThresholdNet, fuse, in_means
from training.losses import segmentation_loss
from training.panet import Panet, PanetSettings
from training.prototypes import background_parts, grid_weights, match, panet_logits, pool


@dataclass(frozen=True)
class PaiaSettings:
    """
    steps: of the fusion with auxiliary pictures. query_steps: those that follow, with the query
        alone. auxiliary: pictures of the class a step and episode, whose masks are withheld.
    distilled: cells that are too far from their prototype are left out; False is the paper's
        "soft".
    softness: width of the threshold's gradient, in mean distances.
    support_weight: of the loss on the support, beside that on the query.
    threshold_weight: of the loss that teaches the threshold by the support's own mask; 0 for none.
    both_ways: each picture of an episode is support once and query once, as for panet.
    panet: what is left of PANet.
    """

    steps: int = 3
    query_steps: int = 3
    auxiliary: int = 2
    distilled: bool = True
    softness: float = 0.1
    support_weight: float = 1.0
    threshold_weight: float = 1.0
    both_ways: bool = True
    panet: PanetSettings = field(default_factory=lambda: PanetSettings(dice_weight=0.0))

    def __post_init__(self) -> None:
        for name in ("steps", "query_steps", "auxiliary", "support_weight", "threshold_weight"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not self.softness > 0:
            raise ValueError(f"softness: expected more than 0, got {self.softness}")


class Paia(Panet):
    """The encoder, the loss of fused prototypes, and the network of the threshold, whose numbers
    are shipped among the method's settings."""

    name = "paia"
    helpers = ("threshold",)

    def __init__(self, encoder: Any, settings: PaiaSettings) -> None:
        super().__init__(encoder, settings.panet)
        self.own, self.auxiliary = settings, settings.auxiliary
        self.threshold = ThresholdNet()

    def forward(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Loss of ``pixels [B, 2 + U, S, S, 3] uint8`` and ``masks [B, 2 + U, S, S] uint8``: two
        pictures with masks of 0, 1 and 255, then auxiliary ones, whose masks hold nothing but where
        there is a picture: 0, and 255 elsewhere."""
        features = self.features(pixels.flatten(0, 1))
        features = features.reshape(*pixels.shape[:2], *features.shape[1:])
        with torch.autocast(pixels.device.type, enabled=False):
            found = [
                self._episode(features[index], masks[index], support)
                for index in range(len(pixels))
                for support in ((0, 1) if self.own.both_ways else (0,))
            ]
            parts = {name: torch.stack([f[name] for f in found]).mean() for name in found[0]}
        own = self.own
        self.figures = {name: value.detach() for name, value in parts.items()}
        loss = parts["query"] + own.support_weight * parts["support"]
        return loss + own.threshold_weight * parts["threshold"] if own.threshold_weight else loss

    def _episode(self, features: Tensor, masks: Tensor, support: int) -> dict[str, Tensor]:
        """The losses of ``features [2 + U, C, h, w]``, one of the first two being the support."""
        height, width = features.shape[-2:]
        shown, query = masks[support][None], masks[1 - support][None]
        weights = torch.cat(
            [grid_weights((shown == way).float(), (height, width)) for way in (0, 1)]
        )
        known = (weights.sum((-2, -1)) > 0)[None]
        own = features[support][None]
        scene = background_parts(own, weights[:1], self.background_parts)[0]
        start = pool(own, weights[None, 1:])[0]
        shows = (masks[2:] != IGNORE).flatten(1).any(1)  # a class may have fewer pictures than U
        covered = grid_weights((masks[2:][shows] != IGNORE).float(), (height, width))
        area = masks.shape[-2] * masks.shape[-1] / (height * width)
        asked, others = features[1 - support][None], features[2:][shows]
        first = self._fuse(others, 0, self.own.steps, scene, start, None, covered / area)
        last = self._fuse(asked, -1, self.own.query_steps, scene, first.sums, first.counts, None)
        scenes, classes = scene[None], last.prototypes[None, self.background_parts :]
        pair = torch.cat([asked, own])
        logits = panet_logits(
            pair, scenes.expand(2, -1, -1), classes.expand(2, -1, -1), self.settings.scale
        )
        dice = self.settings.dice_weight
        losses = {
            name: segmentation_loss(logits[place, None], mask, known, dice)
            for place, (name, mask) in enumerate((("query", query), ("support", shown)))
        }
        losses["threshold"] = self._threshold_loss(own, weights, (first, last))
        return losses

    def sharpened(self, asked: Tensor, scene: Tensor, shown: Tensor) -> Tensor:
        """As the query alone sharpens them: no auxiliary pictures are watched."""
        fused = self._fuse(asked, -1, self.own.query_steps, scene[0], shown[0], None, None)
        return fused.prototypes[None, self.background_parts :]

    def _fuse(
        self,
        features: Tensor,
        way: int,
        steps: int,
        scene: Tensor,
        sums: Tensor,
        counts: Tensor | None,
        covered: Tensor | None,
    ) -> Fused:
        ways = torch.full((len(features),), way, device=features.device)
        return fuse(
            features,
            ways,
            scene,
            sums,
            sums.new_ones(len(sums)) if counts is None else counts,
            steps=steps,
            scale=self.settings.scale,
            distilled=self.own.distilled,
            threshold=self.threshold,
            softness=self.own.softness,
            weights=covered,
        )

    def _threshold_loss(
        self, support: Tensor, weights: Tensor, fusions: tuple[Fused, ...]
    ) -> Tensor:
        """How well every step's threshold tells the support's class from its background: binary
        cross-entropy, both alike. Only the threshold learns from it."""
        steps = [step for fused in fusions for step in fused.steps]
        if not steps or not self.own.distilled or not (weights.sum((-2, -1)) > 0).all():
            return support.sum() * 0
        shares = weights / weights.sum((-2, -1), keepdim=True)
        losses = []
        for step in steps:
            with torch.no_grad():
                distances = 1 - match(support, step.prototypes[None], 1.0)
                near = in_means(distances.flatten(2), step.mean).view_as(shares[0])
            logits = (step.gamma[0] - near) / self.own.softness
            outside, inside = F.softplus(logits), F.softplus(-logits)
            losses.append((shares[0] * outside + shares[1] * inside).sum() / 2)
        return torch.stack(losses).mean()

    def runtime(self) -> dict[str, Any]:
        """What the runtime must know, the threshold's numbers among it."""
        panet = super().runtime()["settings"] | {"background": "pool-of-pixels"}
        settings = {
            "panet": panet,
            "steps": self.own.steps,
            "query_steps": self.own.query_steps,
            "distilled": self.own.distilled,
        }
        if self.own.distilled:
            settings["threshold"] = self.threshold.numbers()
        return {"name": self.name, "settings": settings}
