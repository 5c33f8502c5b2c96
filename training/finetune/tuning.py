"""The tuning itself: a tail, a norm and a classifier, on weighted cells of a few pictures."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fsseg_sdk.errors import InputError
from fsseg_sdk.methods.panet import PanetSettings
from fsseg_sdk.methods.settings import check_range


@dataclass(frozen=True)
class FinetuneSettings:
    """
    panet: of the match that presence is judged by, on features as they were before.
    steps: of Adam, each on all pictures. rate: of the new classifier. tail_rate: of the layers that
        are tuned; 0 leaves them as they are.
    l2: weight decay of the classifier. balanced: every class weighs the same in the loss, or every
        cell.
    """

    panet: PanetSettings = field(default_factory=PanetSettings)
    steps: int = 30
    rate: float = 0.05
    tail_rate: float = 1e-4
    l2: float = 0.0
    balanced: bool = True

    def __post_init__(self) -> None:
        check_range("steps", self.steps, 1, 10_000)
        check_range("rate", self.rate, 1e-6, 10.0)
        check_range("tail_rate", self.tail_rate, 0.0, 1.0)
        check_range("l2", self.l2, 0.0, 1.0)


class Classifier(nn.Module):
    """Batch norm on the last features, and a linear layer that begins at zero.

    The paper found that the norm makes tuning converge faster. Logits are divided by the square
    root of the channels, so that one learning rate serves every encoder.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        # momentum 1: the statistics of the last step, which saw all pictures
        self.norm = nn.BatchNorm2d(channels, momentum=1.0)
        self.linear = nn.Conv2d(channels, classes, 1)
        self.scale = channels**-0.5
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        found: Tensor = self.linear(self.norm(features) * self.scale)
        return found


@dataclass(frozen=True)
class Tuned:
    """tail and classifier, in evaluation mode."""

    tail: nn.Module
    classifier: Classifier

    def logits(self, features: Tensor) -> Tensor:
        """``[B, C, h, w] -> [B, 1 + N, h, w]``, one picture at a time: a batch would round
        otherwise."""
        with torch.inference_mode():
            return torch.cat([self.classifier(self.tail(one[None])) for one in features])


def tune(
    tail: nn.Module, pictures: Sequence[Tensor], weights: Tensor, settings: FinetuneSettings
) -> Tuned:
    """Tune a copy of ``tail`` and a new classifier.

    Args:
        pictures: ``[C, h, w]`` each, what goes into the tail.
        weights: ``[pictures, 1 + N, h, w]``, how much a cell counts as each class, background
            first.

    Raises:
        InputError: no cell has a weight, or there is a single cell, which has no statistics.
    """
    if not float(weights.sum()) > 0:
        raise InputError(
            "support",
            expected="labelled cells to tune on",
            got="none: all weights are 0",
            remedy="Label some of the pictures; what is ignored teaches nothing.",
        )
    own = deepcopy(tail).eval()  # norms and dropout inside keep to what they learned
    for parameter in own.parameters():
        parameter.requires_grad_(settings.tail_rate > 0)
    given = torch.stack(list(pictures))
    mass = weights.sum((0, 2, 3), keepdim=True)
    some = (mass > 0).float()
    share = some / mass.clamp_min(1e-30) / some.sum() if settings.balanced else 1 / mass.sum()
    target = weights * share
    with torch.no_grad():
        features = own(given)
    if features[:, 0].numel() < 2:
        raise InputError(
            "support",
            expected="2 cells or more, whose mean and variance the batch norm can take",
            got="one picture of a single cell",
            remedy="Give more pictures or a larger input.",
        )
    classifier = Classifier(features.shape[1], weights.shape[1])
    groups = [
        {
            "params": classifier.parameters(),
            "lr": settings.rate,
            "weight_decay": settings.l2,
        }
    ]
    tuned = [p for p in own.parameters() if p.requires_grad]
    if tuned:
        groups.append({"params": tuned, "lr": settings.tail_rate, "weight_decay": 0.0})
    optimizer = torch.optim.Adam(groups)
    for _ in range(settings.steps):
        if tuned:
            features = own(given)
        loss = -(torch.log_softmax(classifier(features), 1) * target).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return Tuned(own.requires_grad_(False), classifier.eval().requires_grad_(False))
