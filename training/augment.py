"""Random views of a picture with its mask: crop, turn, flip, colour.

Everything is drawn from the generator handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from training.datasets import IGNORE


@dataclass(frozen=True)
class AugmentSettings:
    """Ranges of a random view; sizes are fractions of the picture, angles in degrees.

    stretch: of the crop's aspect, as a logarithm.
    """

    crop: tuple[float, float] = (0.6, 1.0)
    stretch: float = 0.25
    angle: float = 10.0
    colour: float = 0.3
    grey: float = 0.1
    blur: float = 0.15
    least_pixels: int = 24

    def __post_init__(self) -> None:
        if len(self.crop) != 2 or not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop: expected two rising fractions of 1, got {self.crop}")
        for name in ("colour", "grey", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if min(self.stretch, self.angle, self.least_pixels) < 0:
            raise ValueError(
                "stretch, angle, least_pixels: expected 0 or more, got "
                f"{self.stretch}, {self.angle}, {self.least_pixels}"
            )


def jitter(rng: np.random.Generator, pixels: np.ndarray, settings: AugmentSettings) -> np.ndarray:
    """Change brightness, contrast, saturation and channel gains of ``[H, W, 3] uint8``."""
    value = pixels.astype(np.float32)
    amount = settings.colour
    value *= rng.uniform(1 - amount, 1 + amount) * rng.uniform(
        1 - amount / 3, 1 + amount / 3, 3
    ).astype(np.float32)
    mean = value.mean()
    value = mean + (value - mean) * rng.uniform(1 - amount, 1 + amount)
    grey = value.mean(2, keepdims=True)
    keep = 0.0 if rng.random() < settings.grey else rng.uniform(1 - amount, 1 + amount)
    value = grey + (value - grey) * keep
    if rng.random() < settings.blur:
        value = cv2.GaussianBlur(value, (0, 0), rng.uniform(0.4, 1.6))
    return np.clip(value, 0, 255).astype(np.uint8)


def shown(mask: np.ndarray) -> np.ndarray:
    """Where a mask marks any class."""
    return (mask > 0) & (mask != IGNORE)


def _first(mask: np.ndarray) -> np.ndarray:
    return mask if mask.ndim == 2 else mask[..., 0]


def warp(
    rng: np.random.Generator, pixels: np.ndarray, mask: np.ndarray, settings: AugmentSettings
) -> tuple[np.ndarray, np.ndarray]:
    """A random crop, turned, perhaps mirrored, at the picture's resolution; outside is ignore."""
    height, width = mask.shape[:2]
    fraction = rng.uniform(*settings.crop)
    stretch = np.exp(rng.uniform(-settings.stretch, settings.stretch))
    crop_w = max(16, int(width * min(1.0, fraction * stretch)))
    crop_h = max(16, int(height * min(1.0, fraction / stretch)))
    ys, xs = np.nonzero(shown(_first(mask)))
    pick = rng.integers(len(ys)) if len(ys) else None
    centre_x = width * rng.random() if pick is None else xs[pick] + rng.uniform(-0.4, 0.4) * crop_w
    centre_y = height * rng.random() if pick is None else ys[pick] + rng.uniform(-0.4, 0.4) * crop_h
    centre_x = float(
        np.clip(centre_x, min(crop_w / 2, width / 2), max(width - crop_w / 2, width / 2))
    )
    centre_y = float(
        np.clip(centre_y, min(crop_h / 2, height / 2), max(height - crop_h / 2, height / 2))
    )
    matrix = cv2.getRotationMatrix2D(
        (centre_x, centre_y), rng.uniform(-settings.angle, settings.angle), 1.0
    )
    matrix[:, 2] += (crop_w / 2 - centre_x, crop_h / 2 - centre_y)
    if rng.random() < 0.5:
        matrix[0] = -matrix[0]
        matrix[0, 2] += crop_w - 1
    size = (crop_w, crop_h)
    view = cv2.warpAffine(
        pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    labels = cv2.warpAffine(
        mask,
        matrix,
        size,
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(IGNORE,) * 4,
    )
    return view, labels


def random_view(
    rng: np.random.Generator,
    pixels: np.ndarray,
    mask: np.ndarray,
    settings: AugmentSettings,
    tries: int = 6,
) -> tuple[np.ndarray, np.ndarray]:
    """A view ``([h, w, 3] uint8, [h, w] uint8)`` that still shows a class, if it can be had.

    Masks may have up to four layers ``[H, W, L]``, which move together; the first says what to
    show.
    """
    for _ in range(tries):
        view, labels = warp(rng, pixels, mask, settings)
        if np.count_nonzero(shown(_first(labels))) >= settings.least_pixels:
            break
    else:
        view, labels = pixels, mask
    return jitter(rng, view, settings), labels
