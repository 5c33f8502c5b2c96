"""What the trainer core asks of a method: a learner, and what a step takes beside episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.prototypes import panet_logits


class Learner(nn.Module, ABC):
    """A module with an ``encoder``; ``forward(pixels, masks, ...)`` is the loss of a step.

    Its arguments are the step's episodes, ``[B, 2 + U, S, S, 3] uint8`` and ``[B, 2 + U, S, S]
    uint8`` (``[B, 2 + U, 2, S, S]`` with classes), then what the method's own sources draw
    (:class:`Share`), in their order.

    Attributes:
        auxiliary: U, pictures of an episode beside support and query, without their masks.
        classes: ids of classes whose labels are wanted beside the ways of an episode.
        background_parts: prototypes of the background that its features are matched with.
        helpers: modules that only training needs. They are resumed with, not shipped.
        figures: what the last step's loss consists of, by name; written to the log.
    """

    encoder: Any
    auxiliary: int = 0
    classes: tuple[int, ...] = ()
    background_parts: int = 1
    helpers: tuple[str, ...] = ()
    figures: Mapping[str, Tensor]

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.figures = encoder, {}

    @abstractmethod
    def runtime(self) -> dict[str, Any]:
        """The method's entry in a manifest: ``{"name": ..., "settings": {...}}``."""

    def features(self, pixels: Tensor) -> Tensor:
        """``[B, S, S, 3] uint8 -> [B, C, h, w]`` float32."""
        mean, std = (
            torch.tensor(v, device=pixels.device)[:, None, None]
            for v in (self.encoder.mean, self.encoder.std)
        )
        features: Tensor = self.encoder((pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std)
        return features.float()

    def answer(self, asked: Tensor, scene: Tensor, shown: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits ``[1, 1 + N, h, w]`` of a query ``asked [1, C, h, w]``, by prototypes ``scene
        [1, P, C]`` of the background and ``shown [1, N, C]`` of classes; for the watched figure.
        size: of the picture."""
        return panet_logits(asked, scene, self.sharpened(asked, scene, shown))

    def sharpened(self, asked: Tensor, scene: Tensor, shown: Tensor) -> Tensor:
        """Prototypes ``shown`` of classes as they meet the query; see :meth:`answer`."""
        return shown

    def shipped(self) -> dict[str, Tensor]:
        """The tensors of a checkpoint: all but those of the helpers."""
        own = tuple(f"{name}." for name in self.helpers)
        return {name: t for name, t in self.state_dict().items() if not name.startswith(own)}


class Source(Protocol):
    """Draws pictures with labels; the same generator state gives the same ones."""

    def draw(self, rng: np.random.Generator) -> Sequence[tuple[np.ndarray, np.ndarray]]:
        """``[(pixels [S, S, 3] uint8, labels [..., S, S] uint8)]``, always as many."""


@dataclass(frozen=True)
class Share:
    """What a step takes of a source: ``count`` draws, over all processes."""

    source: Source
    count: int
    name: str = "batch"  # the setting that holds the count


@dataclass(frozen=True)
class Setup:
    """What a method brings to a run.

    extra: beside the episodes. provenance: what a checkpoint's header says, and what a run that is
    resumed must find as it was.
    """

    learner: Learner
    extra: tuple[Share, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
