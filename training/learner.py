"""What the trainer core asks of a method: a learner, and what a step takes beside episodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.prototypes import background_parts, grid_weights, panet_logits, pool


class Example(NamedTuple):
    """A labelled picture of a watched episode.

    features: ``[1, C, h, w]``. pixels: ``[1, S, S, 3] uint8``. masks: ``[1, 2, S, S]`` float32 of 0
    and 1, what is background and what is of the class; neither where it is unknown.
    """

    features: Tensor
    pixels: Tensor
    masks: Tensor


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
        pretrained: modules that begin from a file of weights, ``fresh`` parts of theirs aside.
        rates: factors on the learning rate of all below a module, by its name.
        figures: what the last step's loss consists of, by name; written to the log.
    """

    encoder: Any
    auxiliary: int = 0
    classes: tuple[int, ...] = ()
    background_parts: int = 1
    helpers: tuple[str, ...] = ()
    pretrained: tuple[str, ...] = ("encoder",)
    rates: Mapping[str, float] = MappingProxyType({})
    figures: Mapping[str, Tensor]

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder, self.figures = encoder, {}

    @abstractmethod
    def runtime(self) -> dict[str, Any]:
        """The method's entry in a manifest: ``{"name": ..., "settings": {...}}``."""

    def start(self, weights: Path | None, images: Callable[[], Tensor]) -> None:
        """Called once where a new run begins, for what a learner takes from more than its encoder.

        Args:
            weights: the file that the encoder began from. images: draws ``[n, 3, S, S]`` inputs of
                the encoder, as training will show them.
        """

    def normalised(self, pixels: Tensor) -> Tensor:
        """``[B, S, S, 3] uint8 -> [B, 3, S, S]`` float32, as the encoder wants them."""
        mean, std = (
            torch.tensor(v, device=pixels.device)[:, None, None]
            for v in (self.encoder.mean, self.encoder.std)
        )
        return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

    def features(self, pixels: Tensor) -> Tensor:
        """``[B, S, S, 3] uint8 -> [B, C, h, w]`` float32."""
        features: Tensor = self.encoder(self.normalised(pixels))
        return features.float()

    def respond(self, asked: Tensor, example: Example) -> Tensor:
        """Logits ``[1, 2, h, w]`` of a query ``asked [1, C, h, w]`` by one labelled picture, for
        the watched figure. By prototypes, unless a learner has another answer."""
        height, width = example.features.shape[-2:]
        weights = grid_weights(example.masks, (height, width))
        scene = background_parts(example.features, weights[:, 0], self.background_parts)
        shown = pool(example.features, weights[:, 1:])
        return self.answer(asked, scene, shown, (example.masks.shape[-2], example.masks.shape[-1]))

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
