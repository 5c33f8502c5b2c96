"""Which parameters learn, how fast, and when."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from training.settings import OptimizerSettings, ScheduleSettings


def freeze(module: nn.Module, names: tuple[str, ...]) -> None:
    """Stop the gradients of these modules and parameters.

    Raises:
        ValueError: a name is that of no parameter and no module with parameters.
    """
    for name in names:
        found = [p for n, p in module.named_parameters() if f"{n}.".startswith(f"{name}.")]
        if not found:
            raise ValueError(f"freeze: expected a module or parameter of the encoder, got {name!r}")
        for parameter in found:
            parameter.requires_grad_(False)


def make_optimizer(learner: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SGD or AdamW over all that learns; the pretrained part may have its own learning rate.

    Each group remembers its full rate as ``base``.
    """
    encoder: Any = learner.encoder
    pretrained = {id(p) for p in getattr(encoder, "vit", encoder).parameters()}
    rates = {False: settings.learning_rate, True: settings.learning_rate}
    if settings.pretrained_learning_rate is not None:
        rates[True] = settings.pretrained_learning_rate
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in pretrained].append(parameter)
    chosen = [{"params": p, "lr": rates[k], "base": rates[k]} for k, p in groups.items() if p]
    if not chosen:
        raise ValueError("freeze: expected something left to train, everything is frozen")
    if settings.name == "sgd":
        return torch.optim.SGD(
            chosen, momentum=settings.momentum, weight_decay=settings.weight_decay
        )
    return torch.optim.AdamW(chosen, weight_decay=settings.weight_decay)


def rate(settings: ScheduleSettings, iteration: int, iterations: int) -> float:
    """Factor on the learning rates in iteration 0, 1, ... of a run."""
    if iteration < settings.warmup:
        return (iteration + 1) / settings.warmup
    done = (iteration - settings.warmup) / max(1, iterations - settings.warmup)
    done = min(done, 1.0)
    if settings.kind == "poly":
        return float((1 - done) ** settings.power)
    if settings.kind == "step":
        passed = sum(iteration >= m * iterations for m in settings.milestones)
        return float(settings.factor**passed)
    if settings.kind == "cosine":
        return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * done))
    return 1.0
