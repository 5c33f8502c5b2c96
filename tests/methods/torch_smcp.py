"""SMCP as the paper has it, in torch and double: prototypes tiled and concatenated for each pass,
features upsampled to be pooled."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fsseg_sdk.methods import Shots
from fsseg_sdk.methods.smcp_settings import SmcpSettings
from training.smcp.head import Head


def scores(
    head: Head,
    shots: Shots,
    query: NDArray[np.float32],
    settings: SmcpSettings,
    extent: tuple[int, int],
) -> NDArray[np.float64]:
    """[N, h, w] foreground above background, of one query [1, C, h, w] whose picture covers so many
    whole cells. ``head`` in double."""
    asked = torch.from_numpy(query).double()
    found = []
    for way in range(int(shots.way.max()) + 1):
        vectors = torch.stack([_pooled(shots, row) for row in np.flatnonzero(shots.way == way)])
        logits = head(asked, vectors.mean(0)[None])
        if settings.passes == 2 and settings.guide != "support":
            pseudo = _pseudo(asked, logits, settings.pixels_per_cell, extent)
            if pseudo is not None:
                logits = head(asked, _guide(vectors, pseudo, settings)[None])
        found.append(logits[0, 1] - logits[0, 0])
    return torch.stack(found).detach().numpy()


def _pooled(shots: Shots, row: int) -> Tensor:
    features = torch.from_numpy(shots.features[shots.picture[row]]).double()
    weight = torch.from_numpy(shots.foreground[row]).double()
    return (features * weight).sum((1, 2)) / weight.sum()


def _pseudo(asked: Tensor, logits: Tensor, factor: int, extent: tuple[int, int]) -> Tensor | None:
    """Eq. 6 as it stands."""
    rows, columns = extent
    own, shown = (x[..., :rows, :columns] for x in (logits, asked))
    size = (rows * factor, columns * factor)
    large, features = (F.interpolate(x, size, mode="bilinear") for x in (own, shown))
    mask = (large[0, 1] > large[0, 0]).double()
    return (features[0] * mask).sum((1, 2)) / mask.sum() if mask.any() else None


def _guide(vectors: Tensor, pseudo: Tensor, settings: SmcpSettings) -> Tensor:
    if settings.guide == "pseudo":
        return pseudo
    if settings.fusion == "shots":
        return torch.cat([vectors, pseudo[None]]).mean(0)
    return (vectors.mean(0) + pseudo) / 2
