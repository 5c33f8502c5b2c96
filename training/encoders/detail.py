"""A ViT whose keys a small convolutional branch refines to stride 8: the default bundle's encoder.

A 16-pixel patch is too coarse for poles, cracks and seedlings. The branch sees the picture at
stride 8, is added to the upsampled keys, and starts at zero, so training begins exactly where the
raw keys stand.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.encoders.base import Encoder
from training.encoders.vit import ViT, ViTSettings


@dataclass(frozen=True)
class DetailSettings:
    """Form of a ViT with a branch.

    vit: shape of the ViT, with 16-pixel patches, and its tapped blocks.
    channels: feature channels of the output; the keys are projected to it.
    width: channels of the convolutional branch.
    """

    vit: ViTSettings = field(default_factory=ViTSettings)
    channels: int = 256
    width: int = 128

    def __post_init__(self) -> None:
        if self.vit.patch != 16:
            raise ValueError(
                f"vit.patch: expected 16, got {self.vit.patch}. The branch has stride 8, and the "
                "keys are doubled to meet it."
            )
        if not 0 < self.channels <= self.vit.width * len(self.vit.blocks):
            raise ValueError(
                f"channels: expected 1 to {self.vit.width * len(self.vit.blocks)}, as many as the "
                f"ViT has features, got {self.channels}."
            )
        if self.width < 4:
            raise ValueError(f"width: expected 4 or more, got {self.width}.")


class ViTDetail(Encoder):
    """``[B, 3, H, W]`` -> ``[B, channels, H / 8, W / 8]``; H and W are multiples of 16."""

    def __init__(self, settings: DetailSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or DetailSettings()
        channels, width = self.settings.channels, self.settings.width
        self.vit = ViT(self.settings.vit)
        self.mean, self.std, self.multiple = self.vit.mean, self.vit.std, self.vit.multiple
        self.channels, self.stride = channels, self.vit.stride // 2
        self.project = nn.Conv2d(self.vit.channels, channels, 1)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width // 4, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 4, width // 2, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 2, 1),
            nn.ReLU(),
        )
        self.fuse = nn.Sequential(
            nn.Conv2d(channels + width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        last = nn.Conv2d(width, channels, 1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.fuse.append(last)

    def forward(self, image: Tensor) -> Tensor:
        keys = self.project(self.vit(image))
        keys = F.interpolate(keys, scale_factor=2.0, mode="bilinear", align_corners=False)
        return keys + self.fuse(torch.cat([keys, self.stem(image)], dim=1))

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Load the weights of the ViT; the branch begins as it is."""
        self.vit.name = self.name
        self.vit.load_imagenet(state)

    @torch.no_grad()
    def start_from_keys(self, images: Tensor, whiten: float = 0.25, centre: float = 0.5) -> None:
        """Set the projection by the statistics of the keys of ``images`` ``[B, 3, H, W]``.

        Raw keys share one large component and a few loud directions, and cosines see little else.
        So the keys are whitened part of the way (each principal direction divided by its standard
        deviation to the power ``2 * whiten``), with a part of the mean, ``centre``, taken away;
        all of it would take what tells a background from an object. Of that, the directions
        that hold most of the inner products are kept. ``whiten=0, centre=0`` keeps the raw cosines.
        """
        keys = self.vit(images).transpose(0, 1).flatten(1)
        mean = keys.mean(1, keepdim=True)
        values, vectors = torch.linalg.eigh((keys - mean) @ (keys - mean).T / keys.shape[1])
        matrix = vectors @ torch.diag(values.clamp_min(1e-9) ** -whiten) @ vectors.T
        whitened = matrix @ (keys - centre * mean)
        _, directions = torch.linalg.eigh(whitened @ whitened.T)
        matrix = directions[:, -self.channels :].T @ matrix
        weight, bias = self.project.parameters()
        weight.copy_(matrix[:, :, None, None])
        bias.copy_(-centre * (matrix @ mean)[:, 0])
