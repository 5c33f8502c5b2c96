"""From a picture to the encoder's input, and the geometry that leads back from its feature grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .image import Picture

__all__ = ["Geometry", "Kind", "bilinear_samples", "masked", "plan", "preprocess"]

Kind = Literal["squash", "fit"]


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies in the encoder's input.

    kind: "squash" stretches the picture over the whole input; "fit" keeps its aspect and leaves the
    rest, right or below, at the mean colour (0 after normalising).
    image_size (H, W); input_size (S_h, S_w); content (h, w): the pixels of the input that the
    picture covers, from the top left corner.
    """

    kind: Kind
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    content: tuple[int, int]

    def __post_init__(self) -> None:
        if self.kind not in ("squash", "fit"):
            raise InputError(
                "geometry",
                expected="'squash' or 'fit'",
                got=repr(self.kind),
                remedy="Use one of these two kinds.",
            )
        for name in ("image_size", "input_size", "content"):
            size = getattr(self, name)
            if len(size) != 2 or not all(isinstance(side, int) and side >= 1 for side in size):
                raise InputError(
                    f"geometry, {name}",
                    expected="two sides of at least one pixel (height, width)",
                    got=repr(size),
                    remedy="Pass a pair of positive integers.",
                )
        if any(c > s for c, s in zip(self.content, self.input_size, strict=True)):
            raise InputError(
                "geometry, content",
                expected=f"at most the input size {self.input_size}",
                got=repr(self.content),
                remedy="The picture has to lie inside the encoder's input.",
            )

    def extent(self, grid: tuple[int, int]) -> tuple[float, float]:
        """The content in cells of a feature grid (h, w): content * grid / input_size."""
        return (
            self.content[0] * grid[0] / self.input_size[0],
            self.content[1] * grid[1] / self.input_size[1],
        )


def bilinear_samples(
    pixels: int, extent: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each of `pixels` along a side: the cells before and behind it, the weight of the latter.

    The side covers `extent` cells of a grid. Pixel x sits at (x + 0.5) * extent / pixels - 0.5,
    clamped to [0, ceil(extent) - 1]; over the whole grid that is bilinear interpolation with
    align_corners=False. Returns three arrays [pixels].
    """
    last = max(math.ceil(extent) - 1, 0)
    place = (np.arange(pixels, dtype=np.float64) + 0.5) * (extent / pixels) - 0.5
    place = np.clip(place, 0.0, last)
    low = place.astype(np.intp)
    return low, np.minimum(low + 1, last), (place - low).astype(np.float32)


def plan(kind: Kind, image_size: tuple[int, int], input_size: tuple[int, int]) -> Geometry:
    """The geometry of a picture (H, W) in an input (S_h, S_w); no side falls below one pixel."""
    if kind != "fit":
        return Geometry(kind, image_size, input_size, input_size)
    # Integer arithmetic: the longer side fills its input side exactly, on every machine.
    (height, width), (rows, columns) = image_size, input_size
    if min(height, width) >= 1 and height * columns >= width * rows:
        content = (rows, max(1, (2 * width * rows + height) // (2 * height)))
    elif min(height, width) >= 1:
        content = (max(1, (2 * height * columns + width) // (2 * width)), columns)
    else:
        content = input_size  # Geometry refuses the picture's size
    return Geometry(kind, image_size, input_size, content)


def masked(picture: Picture, keep: NDArray[np.uint8], mean: tuple[float, float, float]) -> Picture:
    """The picture with every pixel that is 0 in `keep` [H, W] at the mean colour, which is about 0
    in the encoder's input. mean: per channel RGB, in units of 0..1."""
    colour = np.clip(np.rint(255 * np.asarray(mean, np.float64)), 0, 255).astype(np.uint8)
    pixels = np.where(keep[..., None] != 0, picture.pixels, colour)
    return replace(picture, pixels=pixels)


def preprocess(
    picture: Picture,
    geometry: Geometry,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    *,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """The encoder's input [1, 3, S_h, S_w]: antialiased triangle filter, x / 255, (x - mean) / std.

    mean, std: per channel RGB, in units of 0..1. Raises InputError if the geometry was planned for
    a picture of another size.
    """
    if geometry.image_size != picture.size:
        raise InputError(
            "geometry",
            expected=f"one planned for the picture's size {picture.size}",
            got=f"one for {geometry.image_size}",
            remedy="Call plan() with this picture's size.",
        )
    from . import ops

    result: NDArray[np.float32] = ops.preprocess(
        picture.pixels, geometry.input_size, geometry.content, mean, std, threads=threads
    )
    return result
