"""OSLSM's learner: one branch writes a pixel classifier, the other has the pixels.

OSLSM (Shaban et al., BMVC 2017), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.datasets import Sample
from training.encoders import read_weights
from training.learner import Example, Learner, Setup
from training.losses import segmentation_loss
from training.optimization import freeze
from training.oslsm.conditioner import Classifier, Conditioner, Pooled, masked
from training.oslsm.settings import OslsmSettings
from training.settings import RunSettings

VGG = ("vgg16", "vgg16_smcp", "fcn32s", "fcn_dilated")


class Oslsm(Learner):
    """The encoder is the segmentation branch; ``conditioner`` the other."""

    name = "oslsm"
    pretrained = ("encoder", "conditioner.head.trunk")

    def __init__(self, encoder: Any, settings: OslsmSettings) -> None:
        super().__init__(encoder)
        self.own = settings
        self.conditioner = Conditioner(encoder, settings)
        whole = settings.head == "classifier"
        slow = "conditioner" if whole else "conditioner.head.trunk"
        self.rates = {slow: settings.conditioner_rate}

    def start(self, weights: Path | None, images: Callable[[], Tensor]) -> None:
        """VGG-16's classifier from the file that the encoder began from; the statistics of the
        features from a few pictures."""
        head = self.conditioner.head
        if isinstance(head, Classifier):
            if weights is not None:
                head.load(read_weights(weights))
            return
        was = self.training
        self.eval()
        with torch.no_grad():
            for image in images():
                features = self.encoder(image[None]).float()
                self.conditioner.standard.update(features)
                head.standard.update(features)
        self.train(was)

    def forward(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Eq. 3 of ``pixels [B, 2, S, S, 3] uint8``, support and query, and ``masks [B, 2, S, S]
        uint8`` of 0, 1 and 255; with ``both_ways`` that of the other direction as well."""
        if self.own.both_ways:
            supports, queries = pixels.flatten(0, 1), pixels.flip(1).flatten(0, 1)
            shown, wanted = masks.flatten(0, 1), masks.flip(1).flatten(0, 1)
        else:
            supports, queries, shown, wanted = pixels[:, 0], pixels[:, 1], masks[:, 0], masks[:, 1]
        features = self.features(queries)
        if self.training and self.own.standardise:
            self.conditioner.standard.update(features)
        image = self.normalised(masked(supports, shown == 1, self.encoder.mean))
        parameters = self.conditioner(image)
        # the logits want every digit, whatever the branches were run in
        with torch.autocast(pixels.device.type, enabled=False):
            logits = classified(features, parameters)
            known = (shown == 1).flatten(1).any(1)
            if self.own.balanced:
                return balanced_loss(logits, wanted, known)
            both = torch.stack([torch.ones_like(known), known], 1)
            return segmentation_loss(logits, wanted, both, dice_weight=0.0)

    def respond(self, asked: Tensor, example: Example) -> Tensor:
        """The runtime's: one pass, no prototypes."""
        image = self.normalised(masked(example.pixels, example.masks[:, 1] > 0, self.encoder.mean))
        return classified(asked, self.conditioner(image))

    def runtime(self) -> dict[str, Any]:
        return {"name": self.name, "settings": {}}


def classified(features: Tensor, parameters: Tensor) -> Tensor:
    """``[B, C, h, w], [B, C + 1] -> [B, 2, h, w]``: 0 for the background, w.F + b for the class;
    the softmax of the two is eq. 2's sigmoid."""
    scores = torch.einsum("bchw,bc->bhw", features, parameters[:, :-1])
    scores = scores + parameters[:, -1, None, None]
    return torch.stack([torch.zeros_like(scores), scores], 1)


def balanced_loss(logits: Tensor, wanted: Tensor, known: Tensor) -> Tensor:
    """The mean of the two sides' mean losses, over the pictures of which both sides are there.

    ``[B, 2, h, w]``, ``[B, H, W] uint8`` of 0, 1 and 255, and which ``[B] bool`` count.
    """
    upsampled = F.interpolate(logits, wanted.shape[-2:], mode="bilinear", align_corners=False)
    score = upsampled[:, 1] - upsampled[:, 0]
    sides = []
    for value, sign in ((0, 1.0), (1, -1.0)):
        mine = (wanted == value) & known[:, None, None]
        total = (F.softplus(sign * score) * mine).sum((1, 2))
        sides.append(total / mine.sum((1, 2)).clamp_min(1))
    return torch.stack(sides).mean()


def set_up_oslsm(
    encoder: Any,
    settings: RunSettings[OslsmSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    """The learner; what of the encoder stays as it is does so in the conditioner's trunk as well.

    Raises:
        ValueError: episodes may have several classes, or ``side`` is none that the encoder takes.
    """
    own = settings.own
    if settings.episodes.several > 0:
        raise ValueError(
            "several: expected episodes of one class, since one classifier is made of a picture, "
            f"got a share of {settings.episodes.several} with more. Set it to 0."
        )
    if own.head == "pooled" and own.side % encoder.multiple:
        raise ValueError(
            f"oslsm.side: expected a multiple of {encoder.multiple} for {settings.encoder.name}, "
            f"got {own.side}."
        )
    if own.head == "classifier" and settings.encoder.name not in VGG:
        raise ValueError(
            f"oslsm.head: 'classifier' expects an encoder that is a VGG-16 ({', '.join(VGG)}), got "
            f"{settings.encoder.name}. Set it to 'pooled'."
        )
    learner = Oslsm(encoder, own)
    if isinstance(learner.conditioner.head, Pooled):
        freeze(learner.conditioner.head.trunk, settings.encoder.freeze)
    return Setup(learner)
