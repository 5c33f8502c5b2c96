"""Colours of labels: the same in mask files, overlays and legends."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

__all__ = ["palette"]

# Okabe and Ito's set, which colour-blind people tell apart; the strongest on photographs first.
_FIRST = (
    (0xD5, 0x5E, 0x00),  # vermilion
    (0x56, 0xB4, 0xE9),  # sky blue
    (0xF0, 0xE4, 0x42),  # yellow
    (0xCC, 0x79, 0xA7),  # reddish purple
    (0x00, 0x9E, 0x73),  # bluish green
    (0xE6, 0x9F, 0x00),  # orange
    (0x00, 0x72, 0xB2),  # blue
)
_IGNORE = (224, 224, 192)


def palette() -> NDArray[np.uint8]:
    """uint8 [256, 3]: row 0 black (background), 1..254 the classes, 255 pale (ignore)."""
    rows: list[tuple[int, int, int]] = [(0, 0, 0), *_FIRST]
    rows += [_mixed(colour, 255, 0.5) for colour in _FIRST]
    rows += [_mixed(colour, 0, 0.4) for colour in _FIRST]
    for index in range(len(rows), 255):  # beyond that, hues by the golden angle
        hue, value = index * 0.618034 % 1.0, (1.0, 0.75, 0.55)[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, value)
        rows.append((round(red * 255), round(green * 255), round(blue * 255)))
    return np.array([*rows, _IGNORE], np.uint8)


def _mixed(colour: tuple[int, int, int], target: int, share: float) -> tuple[int, int, int]:
    red, green, blue = (round(part + (target - part) * share) for part in colour)
    return red, green, blue
