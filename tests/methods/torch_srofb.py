"""SROFB once more in torch, with autograd: what the runtime's method is compared with."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fsseg_sdk.methods import Shots
from fsseg_sdk.methods.srofb_settings import SrofbSettings
from fsseg_sdk.ops import Mlp


def network_of(start: Mlp) -> nn.Sequential:
    """A hidden layer with ReLU, and an output layer that starts at zero."""
    classes, hidden = start.output_weight.shape
    channels = start.hidden_weight.shape[1]
    network = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, classes))
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(start.hidden_weight))
        network[0].bias.copy_(torch.from_numpy(start.hidden_bias))
        network[2].weight.zero_()
        network[2].bias.zero_()
    return network


def prototypes(shots: Shots) -> Tensor:
    """``[N + 1, C]``: means over shots; backgrounds averaged over shots, then over ways."""
    features = torch.from_numpy(shots.features)[torch.from_numpy(shots.picture)]
    planes = torch.from_numpy(np.stack([shots.background, shots.foreground], 1))
    pooled = torch.einsum("schw,sphw->spc", features, planes) / planes.sum((2, 3))[..., None]
    ways = [pooled[torch.from_numpy(shots.way == way)] for way in range(shots.way.max() + 1)]
    background = torch.stack([rows[:, 0].mean(0) for rows in ways]).mean(0)
    return torch.stack([background, *(rows[:, 1].mean(0) for rows in ways)])


def logits(shots: Shots, query: np.ndarray, start: Mlp, settings: SrofbSettings) -> np.ndarray:
    """``[N + 1, h, w]`` of one query ``[1, C, h, w]``; every class has a sure cell in it."""
    asked = torch.from_numpy(query[0]).flatten(1).T
    unit = F.normalize(prototypes(shots), dim=1)
    rough = settings.temperature * F.normalize(asked, dim=1) @ unit.T
    sure = rough.softmax(1)
    limits = [settings.background_threshold] + [settings.foreground_threshold] * (len(unit) - 1)
    picked = settings.query_weight * (sure >= torch.tensor(limits))

    features = torch.from_numpy(shots.features)[torch.from_numpy(shots.picture)]
    cells = features.flatten(2).transpose(1, 2).reshape(-1, len(asked.T))
    marked = torch.zeros(len(shots.way), shots.foreground[0].size, len(unit))
    for index, way in enumerate(shots.way):
        marked[index, :, 0] = torch.from_numpy(shots.background[index].ravel())
        marked[index, :, way + 1] = torch.from_numpy(shots.foreground[index].ravel())
    inputs = torch.cat([cells, asked])
    weights = torch.cat([marked.flatten(0, 1), picked])
    weights = weights / weights.sum(0) / len(unit)
    if settings.length:
        inputs = settings.length * F.normalize(inputs, dim=1)

    network = network_of(start)
    optimizer = torch.optim.SGD(
        network.parameters(), settings.learning_rate, momentum=settings.momentum
    )
    shots_a_class = len(shots.way) / (len(unit) - 1)
    for _ in range(settings.iterations_at(shots_a_class)):
        loss = -(weights * network(inputs).log_softmax(1)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert math.isfinite(float(loss.detach()))
    with torch.no_grad():
        scores = network(inputs[-len(asked) :]).lerp(rough, settings.match_share)
    return scores.T.reshape(-1, *query.shape[2:]).numpy()
