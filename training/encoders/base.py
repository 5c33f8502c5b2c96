"""What all encoders have in common: their facts, their frozen norms, their pretrained weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.encoders.weights import load_weights

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

BatchNorm = Literal["statistics-frozen", "frozen", "trained"]


class Encoder(nn.Module):
    """``[B, 3, H, W] -> [B, channels, h, w]``.

    Attributes:
        name: what the registry calls it, for messages.
        mean, std: what the pixels, scaled to 0..1, are normalised by.
        stride: input pixels per cell of the features; h and w are H and W divided by it, rounded.
        channels: of the features, all taps together.
        multiple: H and W must be multiples of it.
        batch_norm: "statistics-frozen" keeps running means and variances and trains the factors
            after them (an episode has too few pictures to estimate statistics from); "frozen"
            keeps the factors, too; "trained" is torch's usual batch norm.
    """

    name = ""
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    stride: int
    channels: int
    multiple = 1
    batch_norm = "trained"

    def freeze_norms(self, batch_norm: str) -> None:
        """Take up a policy for batch norm; called once, when all layers are there."""
        self.batch_norm = batch_norm
        if batch_norm == "frozen":
            for norm in self.norms():
                norm.requires_grad_(False)

    def norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def train(self, mode: bool = True) -> Encoder:
        super().train(mode)
        for norm in self.norms():
            if self.batch_norm != "trained" or not norm.weight.requires_grad:
                norm.eval()
        return self

    def convert(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A pretrained state dict with this encoder's names and shapes."""
        return state

    def foreign(self, key: str) -> bool:
        """Is a tensor that this encoder has not, but a file has, a sign of another network?

        Heads and blocks after the last tap are not: they are left out.
        """
        raise NotImplementedError

    def fresh(self, key: str) -> bool:
        """Does this tensor begin as noise, because no pretrained file has it?"""
        return False

    def load_imagenet(self, state: dict[str, Tensor]) -> None:
        """Load pretrained weights, all that this encoder needs.

        Raises:
            ValueError: tensors are missing, of another shape, or of another network; says which.
        """
        load_weights(self, state)


def join(taps: Sequence[Tensor]) -> Tensor:
    """Concatenate feature maps on the grid of the finest, the others resized bilinearly."""
    if len(taps) == 1:
        return taps[0]
    size = max((tap.shape[-2:] for tap in taps), key=lambda shape: shape[0] * shape[1])
    resized = [
        tap
        if tap.shape[-2:] == size
        else F.interpolate(tap, size, mode="bilinear", align_corners=False)
        for tap in taps
    ]
    return torch.cat(resized, dim=1)


def check_taps(taps: Sequence[str], known: Sequence[str]) -> None:
    """Raise ValueError unless taps are some of ``known``, from the input on, none twice."""
    if not taps or list(taps) != [name for name in known if name in taps]:
        raise ValueError(
            f"taps: expected some of {', '.join(known)}, in that order, got {list(taps)}. "
            "Name each layer once."
        )


def check_output_stride(value: int) -> None:
    if value not in (8, 16, 32):
        raise ValueError(f"output_stride: expected 8, 16 or 32, got {value}. Choose one of them.")
