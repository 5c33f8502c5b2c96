"""Which parameters learn, how fast, and when."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from training.checkpoint import section
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
    """SGD or AdamW over all that learns; the part that files of weights have may have its own
    learning rate. Each group remembers its full rate as ``base``.

    Raises:
        ValueError: nothing is left to train, or nothing that one of the two rates is for.
    """
    encoder: Any = learner.encoder
    backbone = getattr(encoder, "vit", encoder)
    pretrained = {id(p) for name, p in backbone.named_parameters() if not backbone.fresh(name)}
    rates = {False: settings.learning_rate, True: settings.learning_rate}
    if settings.pretrained_learning_rate is not None:
        rates[True] = settings.pretrained_learning_rate
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    kinds = {id(parameter) in pretrained for parameter in learner.parameters()}
    for parameter in learner.parameters():
        if parameter.requires_grad:
            groups[id(parameter) in pretrained].append(parameter)
    chosen = [{"params": p, "lr": rates[k], "base": rates[k]} for k, p in groups.items() if p]
    if not chosen:
        raise ValueError(
            "freeze: expected something left to train, got everything frozen. Name less."
        )
    if settings.pretrained_learning_rate is not None and len(kinds) == 1:
        raise ValueError(
            "pretrained_learning_rate: expected parts that are pretrained and parts that are not, "
            "got one kind alone. Leave it out; learning_rate is then for all."
        )
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


def state_of(optimizer: torch.optim.Optimizer, learner: nn.Module) -> dict[str, Tensor]:
    """What an optimiser remembers, as ``parameter.key`` -> tensor."""
    return {
        f"{name}.{key}": value
        for name, parameter in learner.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_state(
    optimizer: torch.optim.Optimizer, learner: nn.Module, tensors: dict[str, Tensor]
) -> None:
    """The opposite of :func:`state_of`."""
    for name, parameter in learner.named_parameters():
        if own := section(tensors, name):
            # Adam counts its steps on the CPU
            optimizer.state[parameter] = {
                key: t if key == "step" else t.to(parameter.device) for key, t in own.items()
            }
