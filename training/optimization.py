"""Which parameters learn, how fast, and when."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
    learning rate, and a learner may have factors on it. Each group remembers its full rate as
    ``base``.

    Raises:
        ValueError: nothing is left to train, or nothing that one of the two rates is for.
    """
    pretrained: set[int] = set()
    for name in getattr(learner, "pretrained", ("encoder",)):
        module: Any = learner.get_submodule(name)
        backbone = getattr(module, "vit", module)
        pretrained |= {id(p) for own, p in backbone.named_parameters() if not backbone.fresh(own)}
    rates = {False: settings.learning_rate, True: settings.learning_rate}
    if settings.pretrained_learning_rate is not None:
        rates[True] = settings.pretrained_learning_rate
    kinds = {id(parameter) in pretrained for parameter in learner.parameters()}
    factors: Mapping[str, float] = getattr(learner, "rates", {})
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for name, parameter in learner.named_parameters():
        if parameter.requires_grad:
            own = [f for module, f in factors.items() if name.startswith(f"{module}.")]
            kind = id(parameter) in pretrained, math.prod(own)
            groups.setdefault(kind, []).append(parameter)
    chosen = [
        {"params": parameters, "lr": rates[kind] * factor, "base": rates[kind] * factor}
        for (kind, factor), parameters in groups.items()
        if parameters
    ]
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
