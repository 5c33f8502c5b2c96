"""The Siamese network: do two cells show the same class?

A baseline of OSLSM (Shaban et al., BMVC 2017, section 6), after Koch et al. for whole pictures. The
paper's details are in a supplement that is not at hand. Here two pictures pass the same encoder and
one linear layer, and two cells are alike if ``a * cos + b`` of their embeddings says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.checkpoint import load_checkpoint
from training.datasets import IGNORE, Sample
from training.learner import Example, Learner, Setup
from training.nearest import cell_labels, nearest_logits
from training.settings import RunSettings


@dataclass(frozen=True)
class SiameseSettings:
    """
    dimensions: of the embedding, at most the encoder's channels.
    background_pairs: weight of a pair of background cells, against 1 of a pair of the class's.
    """

    dimensions: int = 128
    background_pairs: float = 1.0

    def __post_init__(self) -> None:
        if self.dimensions < 1:
            raise ValueError(f"dimensions: expected 1 or more, got {self.dimensions}.")
        if not self.background_pairs >= 0:
            raise ValueError(f"background_pairs: expected 0 or more, got {self.background_pairs}.")


class Verdict(nn.Module):
    """``a * cos + b`` as ``a * (cos - middle)``: neither number waits for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(2.3))  # a = 10
        self.middle = nn.Parameter(torch.tensor(0.5))

    def forward(self, cosines: Tensor) -> Tensor:
        return self.log_scale.exp() * (cosines - self.middle)


class Siamese(Learner):
    """An encoder and a linear embedding of its cells; the verdict has no part in a checkpoint,
    since the nearest cell is the nearest whatever the logit."""

    name = "siamese"
    helpers = ("verdict",)

    def __init__(self, encoder: Any, settings: SiameseSettings) -> None:
        super().__init__(encoder)
        self.own = settings
        self.embedding = nn.Conv2d(encoder.channels, settings.dimensions, 1, bias=False)
        self.verdict = Verdict()
        nn.init.orthogonal_(self.embedding.weight)

    def start(self, weights: Path | None, images: Callable[[], Tensor]) -> None:
        """The directions that hold most of the features of a few pictures: cosines begin almost as
        they are between the features themselves."""
        was = self.training
        self.eval()
        channels = self.embedding.in_channels
        moment = torch.zeros(channels, channels, dtype=torch.float64)
        with torch.no_grad():
            for image in images():
                cells = self.encoder(image[None]).float()[0].flatten(1)
                cells = F.normalize(cells, dim=0).double()
                moment += cells @ cells.T
            vectors = torch.linalg.eigh(moment).eigenvectors.flip(1)[:, : self.own.dimensions]
            self.embedding.weight.copy_(vectors.T[:, :, None, None])
        self.train(was)

    def forward(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """Binary cross-entropy of all pairs of a cell of one picture and a cell of the other;
        ``pixels [B, 2, S, S, 3] uint8``, ``masks [B, 2, S, S] uint8`` of 0, 1 and 255. Pairs that
        are alike and pairs that are not weigh the same in sum."""
        features = self.features(pixels.flatten(0, 1))
        with torch.autocast(pixels.device.type, enabled=False):
            embedded = F.normalize(self.embedding(features), dim=1, eps=1e-8).flatten(2)
            regions = torch.stack([(masks != 1) & (masks != IGNORE), masks == 1], 2).float()
            grid = (features.shape[-2], features.shape[-1])
            labels = cell_labels(regions.flatten(0, 1), grid).flatten(1)
            cosines = embedded[::2].transpose(1, 2) @ embedded[1::2]  # [B, cells, cells]
            one, other = labels[::2, :, None], labels[1::2, None, :]
            known, same = (one >= 0) & (other >= 0), one == other
            weight = torch.where(same & (one == 0), self.own.background_pairs, 1.0) * known
            logits = self.verdict(cosines)
            losses = F.binary_cross_entropy_with_logits(logits, same.float(), reduction="none")
            sides = []
            for kind in (same, ~same):
                own = weight * kind
                sides.append((losses * own).sum((1, 2)) / own.sum((1, 2)).clamp_min(1e-8))
        self.figures = {n: s.detach().mean() for n, s in zip(("same", "other"), sides, strict=True)}
        return torch.stack(sides).mean()

    def respond(self, asked: Tensor, example: Example) -> Tensor:
        """The runtime's: the nearest embedded cell."""
        return nearest_logits(
            self.embedding(asked), self.embedding(example.features), example.masks
        )

    def runtime(self) -> dict[str, Any]:
        return {"name": self.name, "settings": {"panet": {}}}


def set_up_siamese(
    encoder: Any,
    settings: RunSettings[SiameseSettings],
    samples: Sequence[Sample],
    latents_root: Path | None,
) -> Setup:
    """The learner.

    Raises:
        ValueError: episodes may have several classes, or the embedding is wider than the features.
    """
    if settings.episodes.several > 0:
        raise ValueError(
            "several: expected episodes of one class, since a pair of cells is of one class or "
            f"not, got a share of {settings.episodes.several} with more. Set it to 0."
        )
    if settings.own.dimensions > encoder.channels:
        raise ValueError(
            f"siamese.dimensions: expected {encoder.channels} at most, the channels of "
            f"{settings.encoder.name}, got {settings.own.dimensions}."
        )
    return Setup(Siamese(encoder, settings.own))


def load_embedding(path: Path | str) -> nn.Module:
    """``features [B, C, h, w] -> embedding [B, D, h, w]`` of a checkpoint, in eval mode.

    Raises:
        ValueError: the file is not a checkpoint of this project, or of another method.
    """
    tensors, header = load_checkpoint(path)
    weight = tensors.get("embedding.weight")
    if weight is None or weight.dim() != 4:
        raise ValueError(
            f"{path}: expected a checkpoint of method siamese, got one of "
            f"{header.get('method', {}).get('name')!r}. Train one with `python -m training "
            "siamese`."
        )
    embedding = nn.Conv2d(weight.shape[1], weight.shape[0], 1, bias=False)
    embedding.load_state_dict({"weight": weight})
    return embedding.eval()
