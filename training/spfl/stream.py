"""Extra pictures with pseudo labels: strongly changed views, labels and all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from training.augment import AugmentSettings, jitter
from training.datasets import IGNORE, Sample
from training.datasets.sample import read_picture
from training.resize import fit_to


@dataclass(frozen=True)
class ViewSettings:
    """A strongly changed view: the kinds of change that semi-supervised segmentation trains with.

    crop: side of a random crop, as fractions of the picture's. stretch: of its aspect, as a
        logarithm. flip: chance of a mirrored view.
    colour: range of brightness, contrast and saturation around 1. grey, blur: chances.
    cutout: chance of a rectangle that is painted over, its labels unknown. cutout_area: of it, as
        fractions of the view.
    """

    crop: tuple[float, float] = (0.5, 1.0)
    stretch: float = 0.25
    flip: float = 0.5
    colour: float = 0.5
    grey: float = 0.2
    blur: float = 0.5
    cutout: float = 0.5
    cutout_area: tuple[float, float] = (0.02, 0.4)

    def __post_init__(self) -> None:
        for name in ("crop", "cutout_area"):
            ends = getattr(self, name)
            if len(ends) != 2 or not 0 < ends[0] <= ends[1] <= 1:
                raise ValueError(f"{name}: expected two rising fractions of 1, got {list(ends)}")
        for name in ("flip", "colour", "grey", "blur", "cutout"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if not self.stretch >= 0:
            raise ValueError(f"stretch: expected 0 or more, got {self.stretch}")


def window(
    rng: np.random.Generator, height: int, width: int, fraction: float, stretch: float
) -> tuple[slice, slice]:
    """Rows and columns of a random rectangle of ``fraction`` of the sides, inside the picture."""
    aspect = np.exp(rng.uniform(-stretch, stretch))
    rows = int(np.clip(round(height * fraction / aspect), 1, height))
    columns = int(np.clip(round(width * fraction * aspect), 1, width))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    return slice(top, top + rows), slice(left, left + columns)


def nearest(labels: np.ndarray, side: int) -> np.ndarray:
    """``[L, H, W] -> [L, side, side]``: each pixel has the label under its middle."""
    rows, columns = (
        ((np.arange(side) + 0.5) * size / side).astype(np.intp) for size in labels.shape[-2:]
    )
    return labels[:, rows[:, None], columns]


def strong_view(
    rng: np.random.Generator,
    pixels: np.ndarray,
    labels: np.ndarray,
    side: int,
    settings: ViewSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """A view of ``[H, W, 3] uint8`` and of its labels ``[L, H, W] uint8``, ``side x side`` pixels.

    Labels are moved and never mixed; what is cut out is 255 at every level.
    """
    height, width = labels.shape[-2:]
    place = window(rng, height, width, rng.uniform(*settings.crop), settings.stretch)
    view, _ = fit_to(pixels[place], labels[(0, *place)], side)
    labels = nearest(labels[(slice(None), *place)], side)
    if rng.random() < settings.flip:
        view, labels = view[:, ::-1], labels[..., ::-1]
    colours = AugmentSettings(colour=settings.colour, grey=settings.grey, blur=settings.blur)
    view, labels = jitter(rng, view, colours), labels.copy()
    if rng.random() < settings.cutout:
        fraction = np.sqrt(rng.uniform(*settings.cutout_area))
        hidden = window(rng, side, side, fraction, np.log(2))
        view[hidden] = rng.integers(0, 256, 3)
        labels[(slice(None), *hidden)] = IGNORE
    return view, labels


class Labels(Protocol):
    """Pseudo labels by the key of a picture; see :class:`training.spfl.latents.Latents`."""

    def labels(self, key: str) -> np.ndarray: ...


class LatentSource:
    """Draws pictures evenly, each as one strong view with the labels of every level."""

    def __init__(
        self, samples: Sequence[Sample], latents: Labels, side: int, settings: ViewSettings
    ) -> None:
        self.samples, self.latents = tuple(samples), latents
        self.side, self.settings = side, settings

    def draw(self, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
        """``[(pixels [S, S, 3] uint8, labels [L, S, S] uint8)]``: one picture.

        Raises:
            DataError: the picture cannot be read.
        """
        sample = self.samples[rng.integers(len(self.samples))]
        pixels = read_picture(sample.image)
        labels = self.latents.labels(sample.key)
        return [strong_view(rng, pixels, labels, self.side, self.settings)]
