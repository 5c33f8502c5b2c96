"""The conditioning branch: a masked picture in, the weights and bias of a pixel classifier out.

OSLSM (Shaban et al., BMVC 2017), section 4.1 and eq. 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsseg_sdk.methods.settings import settings_from_json
from training.checkpoint import load_checkpoint, section
from training.encoders import build_encoder
from training.encoders.registry import FCN
from training.encoders.vgg import VGG16
from training.encoders.weights import StateDictError, load_weights
from training.oslsm.hash import Hash
from training.oslsm.settings import OslsmSettings
from training.prototypes import grid_weights, pool

# a masked pixel is the mean colour, rounded to 8 bits: at most 0.0088 off 0 once normalised
HIDDEN, SHOWN = 0.01, 0.03


def masked(pixels: Tensor, shown: Tensor, mean: tuple[float, float, float]) -> Tensor:
    """``[B, H, W, 3] uint8`` with the mean colour wherever ``shown [B, H, W] bool`` is False."""
    colour = torch.tensor([round(255 * v) for v in mean], dtype=torch.uint8, device=pixels.device)
    return torch.where(shown[..., None], pixels, colour)


class Standard(nn.Module):
    """Running mean and variance of features, channel by channel.

    They are constants for what is done with them, while training as well: a step has too few
    pictures for statistics of its own.
    """

    mean: Tensor
    variance: Tensor
    steps: Tensor

    def __init__(self, channels: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, features: Tensor) -> None:
        """``[B, C, h, w]``."""
        flat = features.detach().float().transpose(0, 1).flatten(1)
        variance, mean = torch.var_mean(flat, 1, correction=0)
        self.steps += 1
        weight = torch.clamp(1.0 / self.steps, min=self.momentum)  # at first, the mean of all steps
        self.mean.lerp_(mean, weight)
        self.variance.lerp_(variance, weight)

    def factor(self) -> Tensor:
        """``[C]``: one over the standard deviation."""
        # a channel that is all but constant must not become the loudest
        least = 1e-4 * self.variance.mean() + 1e-12
        return (self.variance + least).rsqrt()

    def forward(self, vectors: Tensor) -> Tensor:
        """``[B, C] -> [B, C]``."""
        return (vectors - self.mean) * self.factor()

    def fold(self, theta: Tensor) -> Tensor:
        """``[B, C + 1]``: a classifier of standard features as one of the features themselves."""
        weights = theta[:, :-1] * self.factor()
        bias = theta[:, -1:] - (weights * self.mean).sum(1, keepdim=True)
        return torch.cat([weights, bias], 1)


class Pooled(nn.Module):
    """The mean of the trunk's features, and a new layer: ``[B, 3, s, s] -> [B, hashed]``."""

    def __init__(self, encoder: Any, settings: OslsmSettings) -> None:
        super().__init__()
        self.trunk = deepcopy(encoder)
        self.visible = settings.pooling == "visible"
        self.standard = Standard(encoder.channels)
        self.last = nn.Linear(encoder.channels, settings.hashed)

    def forward(self, image: Tensor) -> Tensor:
        features = self.trunk(image).float()
        with torch.autocast(image.device.type, enabled=False):
            found: Tensor = self.last(self.standard(self.pooled(features, image)))
        return found

    def pooled(self, features: Tensor, image: Tensor) -> Tensor:
        """``[B, C]`` of the features ``[B, C, h, w]`` of ``image``."""
        if not self.visible:
            return features.mean((2, 3))
        seen = (image.abs().amax(1) - HIDDEN) / (SHOWN - HIDDEN)
        weights = grid_weights(seen.clamp(0, 1), (features.shape[-2], features.shape[-1]))
        # what is shown can be of the mean colour, too: then nothing tells it from what is hidden
        some = weights.sum((1, 2))[:, None] > 0
        return torch.where(some, pool(features, weights[:, None])[:, 0], features.mean((2, 3)))

    def start_as_support(self, hashing: Hash, bias: float) -> None:
        """Begin such that the hashed weights are the standardised mean feature itself, as far as
        channels do not share a number: a prototype's classifier, with that bias."""
        with torch.no_grad():
            self.last.weight.copy_(hashing.mean_transpose()[:, : self.last.in_features])
            self.last.bias.zero_()
            self.last.bias[hashing.index[-1]] = bias * hashing.sign[-1]


class Classifier(nn.Module):
    """VGG-16 to the 1,000 outputs of its classifier: ``[B, 3, 224, 224] -> [B, 1000]``."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = VGG16(FCN)
        self.last = nn.Linear(4096, 1000)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for layer in self.trunk.features:
            x = layer(x)
        for layer in self.trunk.classifier:
            # the 7x7 grid is fc6's whole input: a matrix product, not a convolution
            if isinstance(layer, nn.Conv2d):
                x = F.linear(x.flatten(1), layer.weight.flatten(1), layer.bias)
            else:
                x = layer(x)
        found: Tensor = self.last(x).float()
        return found

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over torchvision's VGG-16.

        Raises:
            ValueError: it is another network, or has no classifier.
        """
        load_weights(self.trunk, dict(state))
        last = {kind: state.get(f"classifier.6.{kind}") for kind in ("weight", "bias")}
        if any(t is None or len(t) != 1000 for t in last.values()):
            raise StateDictError(
                "oslsm.head: 'classifier' expects classifier.6 with 1,000 outputs in the weights "
                "file, got none. Take torchvision's whole vgg16, or head = 'pooled'."
            )
        self.last.load_state_dict({k: t.float() for k, t in last.items() if t is not None})


class Conditioner(nn.Module):
    """``image [B, 3, H, W] -> parameters [B, C + 1]``: weights, then the bias, for the features of
    ``encoder`` as they are.

    The image is normalised, and 0 where the class is not.

    Args:
        encoder: the trunk of a pooled head begins as a copy of it.
    """

    def __init__(self, encoder: Any, settings: OslsmSettings) -> None:
        super().__init__()
        self.settings, self.channels = settings, int(encoder.channels)
        self.head: Pooled | Classifier = (
            Pooled(encoder, settings) if settings.head == "pooled" else Classifier()
        )
        self.hash = Hash(settings.hashed, self.channels + 1, settings.hash_seed)
        self.standard = Standard(self.channels)
        if isinstance(self.head, Pooled) and settings.start == "support":
            self.head.start_as_support(self.hash, settings.bias)

    def forward(self, image: Tensor) -> Tensor:
        side = self.settings.side
        if image.shape[-2:] != (side, side):
            image = F.interpolate(image, (side, side), mode="bilinear", align_corners=False)
        outputs = self.head(image)
        with torch.autocast(image.device.type, enabled=False):
            theta = self.hash(outputs.float()) * self._scale(outputs)
            return self.standard.fold(theta) if self.settings.standardise else theta

    def _scale(self, outputs: Tensor) -> Tensor:
        """``[C + 1]``: the logit is a mean over channels, not a sum, times the sharpness."""
        scale = torch.full((self.channels + 1,), self.settings.sharpness / self.channels)
        scale[-1] = 1.0
        return scale.to(outputs.device)


def load_conditioner(path: Path | str) -> nn.Module:
    """The conditioning branch of a checkpoint, in eval mode.

    Raises:
        ValueError: the file is not a checkpoint of this project, or of another method.
    """
    tensors, header = load_checkpoint(path)
    own = section(tensors, "conditioner")
    if not own or "oslsm" not in header.get("settings", {}):
        raise ValueError(
            f"{path}: expected a checkpoint of method oslsm, got one of "
            f"{header.get('method', {}).get('name')!r}. Train one with `python -m training oslsm`."
        )
    settings = settings_from_json(OslsmSettings, header["settings"]["oslsm"], "settings.oslsm")
    conditioner = Conditioner(build_encoder(**header["encoder"]), settings)
    conditioner.load_state_dict(own)
    return conditioner.eval()
