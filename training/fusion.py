"""Differentiable twin of the runtime's prototype fusion (csrc/prototype_fusion).

Image-level labels sharpen prototypes: what the prototypes find in pictures that are only known to
show a class is pooled, and joins them. PAIA (2021), eq. 2 to 5.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONSTANT = 1e-6
"""Distances of a smaller standard deviation, or mean, are constant, or all zero."""
HIDDEN = 20


class ThresholdNet(nn.Module):
    """``[..., 5] -> [...]``: a class's threshold from the statistics of its distances (eq. 4). It
    begins near 1, the mean distance. No gradient goes back to the statistics: an encoder is not to
    learn to bend them."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.hidden, self.output = nn.Linear(5, hidden), nn.Linear(hidden, 1)
        nn.init.normal_(self.output.weight, std=0.02)
        nn.init.ones_(self.output.bias)

    def forward(self, statistics: Tensor) -> Tensor:
        gamma: Tensor = self.output(torch.tanh(self.hidden(statistics.detach())))
        return gamma[..., 0]

    def numbers(self) -> dict[str, object]:
        """The network as the runtime's settings have it."""
        return {
            "hidden_weight": self.hidden.weight.tolist(),
            "hidden_bias": self.hidden.bias.tolist(),
            "output_weight": self.output.weight[0].tolist(),
            "output_bias": self.output.bias.item(),
        }


class Step(NamedTuple):
    """What a step of the fusion began from. prototypes: ``[N, C]`` of the classes; mean: ``[N]``,
    the distances' mean; gamma: ``[N]``, the threshold of distances in units of that mean."""

    prototypes: Tensor
    mean: Tensor
    gamma: Tensor


class Fused(NamedTuple):
    """prototypes: ``[P + N, C]``. sums: ``[N, C]``, counts: ``[N]``: the prototypes of classes are
    sums / counts. mass: ``[steps, B, N]``, what each picture gave, in cells."""

    prototypes: Tensor
    sums: Tensor
    counts: Tensor
    mass: Tensor
    steps: tuple[Step, ...]


def statistics(distances: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """``[N, cells], [cells] -> [N], [N, 5]``: the mean m of distances, and min / m, max / m,
    var / m^2, skewness and kurtosis. All are 0 where the mean is; the last three, where the
    distances are constant."""
    counted = weights > 0
    total = weights.sum()
    if not counted.any():
        return distances.new_zeros(len(distances)), distances.new_zeros(len(distances), 5)
    mean = distances @ weights / total
    centred = distances - mean[:, None]
    second, third, fourth = (centred**power @ weights / total for power in (2, 3, 4))
    varied = second > CONSTANT**2
    safe = torch.where(varied, second, 1.0)  # no gradient comes back through 0 / 0
    zero = torch.zeros_like(second)
    moved = mean > CONSTANT
    unit = torch.where(moved, mean, 1.0)
    inside = distances[:, counted]
    columns = [
        inside.amin(1) / unit,
        inside.amax(1) / unit,
        torch.where(varied, second, zero) / unit**2,
        torch.where(varied, third / safe**1.5, zero),
        torch.where(varied, fourth / safe**2, zero),
    ]
    return mean, torch.stack(columns, 1) * moved[:, None]


def fuse(
    features: Tensor,
    ways: Tensor,
    background: Tensor,
    sums: Tensor,
    counts: Tensor,
    *,
    steps: int,
    scale: float = 20.0,
    distilled: bool = True,
    threshold: nn.Module | None = None,
    radius: float = 1.0,
    softness: float = 0.1,
    weights: Tensor | None = None,
) -> Fused:
    """Pool what the classes find in pictures, and join it to their prototypes, ``steps`` times.

    A step starts from the prototypes of the step before, and always joins to the sums as they were
    given: ``(sums + pooled) / (counts + pictures that gave something)`` (eq. 5). Which cells are
    near enough is decided hard; the gradient of a pooled vector is that of the same mean with
    ``sigmoid((gamma - d / m) / softness)`` in the place of 0 and 1. (The sigmoid's gradient in the
    hard mean would be that of all cells over the mass of the few that pass: it explodes.)

    Args:
        features: ``[B, C, h, w]``.
        ways: ``[B]`` the class that a picture shows; -1 for any.
        background: ``[P, C]``, which stays as it is. sums: ``[N, C]``. counts: ``[N]``.
        distilled: False takes every cell that the class wins.
        threshold: a module of five statistics; None takes ``radius``.
        weights: ``[B, h, w]``, how much of a cell the picture covers; all of it if None.
    """
    unit = F.normalize(features, dim=1, eps=1e-8).flatten(2)
    flat = features.flatten(2)
    covered = torch.ones_like(flat[:, 0]) if weights is None else weights.flatten(1).to(flat)
    parts, classes = len(background), len(sums)
    numbers = torch.arange(classes, device=features.device)
    candidate = (ways[:, None] == numbers) | (ways[:, None] < 0)  # [B, N]
    prototypes, own_sums, own_counts = sums / counts[:, None], sums, counts
    masses, trace = [], []
    for _ in range(steps if len(features) else 0):
        every = F.normalize(torch.cat([background, prototypes]), dim=-1, eps=1e-8)
        cosines = torch.einsum("bcx,pc->bpx", unit, every)
        scores = scale * torch.cat(
            [cosines[:, :parts].amax(1, keepdim=True), cosines[:, parts:]], 1
        )
        chosen = F.one_hot(scores.argmax(1), 1 + classes).movedim(-1, 1)[:, 1:]
        pooled = torch.softmax(scores, 1)[:, 1:] * chosen * covered[:, None] * candidate[..., None]
        distances = 1 - cosines[:, parts:]
        mean, five = statistics(distances.movedim(1, 0).flatten(1), covered.flatten())
        gamma = torch.full_like(mean, radius) if threshold is None else threshold(five)
        trace.append(Step(prototypes, mean, gamma))
        vectors, mass = _means(flat, pooled)
        if distilled:
            spare = gamma[None, :, None] - in_means(distances, mean)
            hard, mass = _means(flat, pooled.detach() * (spare > 0))
            soft, _ = _means(flat, pooled * torch.sigmoid(spare / softness))
            vectors = soft + (hard - soft).detach()
        gave = mass > 0
        own_sums = sums + (vectors * gave[..., None]).sum(0)
        own_counts = counts + gave.sum(0)
        prototypes = own_sums / own_counts[:, None]
        masses.append(mass)
    mass = torch.stack(masses) if masses else flat.new_zeros(0, len(features), classes)
    return Fused(torch.cat([background, prototypes]), own_sums, own_counts, mass, tuple(trace))


def in_means(distances: Tensor, mean: Tensor) -> Tensor:
    """``[B, N, cells], [N]``: distances in units of their mean, 0 where that is nothing."""
    moved = mean > CONSTANT
    return distances / torch.where(moved, mean, 1.0)[:, None] * moved[:, None]


def _means(flat: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """``[B, C, cells], [B, N, cells] -> [B, N, C], [B, N]``: weighted means, and the weights' sums;
    zeros where that is 0."""
    mass = weights.sum(2)
    total = torch.einsum("bnx,bcx->bnc", weights, flat)
    return total / torch.where(mass > 0, mass, 1.0)[..., None], mass
