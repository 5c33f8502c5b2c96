"""The parts seen from straight above, as heights over a plane: what `draw.py` shades.

A relief takes places u, v (cm, [H, W], the part's own axes, its middle at 0) and gives the height
in cm, 0 where the part is not, and where its second material shows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float64]
Relief = Callable[[Field, Field], tuple[Field, NDArray[np.bool_]]]

RADIUS = {
    "bolt": 2.4,
    "nut": 1.3,
    "gear": 1.85,
    "ring": 1.75,
    "knob": 1.65,
    "spring": 1.9,
    "washer": 1.25,
    "key": 2.9,
    "pin": 1.5,
}  # of the circle around each, cm
MATERIALS = {
    "bolt": ("zinc", "zinc"),
    "nut": ("steel", "nylon"),
    "gear": ("brass", "brass"),
    "ring": ("rubber", "rubber"),
    "knob": ("plastic", "plastic"),
    "spring": ("coated", "coated"),
    "washer": ("steel", "steel"),
    "key": ("oxide", "oxide"),
    "pin": ("steel", "steel"),
}


def _round(radius: float, offset: Field) -> Field:
    """Half circle of this radius over `offset`, 0 beyond it."""
    return np.sqrt(np.maximum(radius**2 - offset**2, 0))


def _none(u: Field) -> NDArray[np.bool_]:
    return np.zeros(u.shape, bool)


def _hexagon(u: Field, v: Field) -> Field:
    """Apothem of the hexagon through each place."""
    angles = np.arange(3) * np.pi / 3
    return np.max([np.abs(u * np.cos(a) + v * np.sin(a)) for a in angles], axis=0)


def _bolt(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    pitch, radius = 0.17, np.full(u.shape, 0.46)
    wave = np.abs(((u / pitch + 0.25 * v) % 1) * 2 - 1)
    radius = np.where(u < 0.85, radius - 0.07 * wave, radius)
    radius = np.minimum(radius, 0.3 + np.maximum(u + 2.15, 0))
    shaft = np.where((u > -2.15) & (u < 1.6), np.sqrt(np.maximum(radius**2 - v**2, 0)), 0)
    shaft = np.where(shaft > 0, shaft + 0.5, 0)
    flats = np.minimum(1.66, 1.66 - (np.abs(v) - 0.48) * 1.73)
    shoulder = np.clip((2.2 - u) / 0.1, 0, 1) * 0.15
    head = np.where((np.abs(v) < 0.95) & (u >= 1.55) & (u < 2.2), flats - 0.15 + shoulder, 0)
    return np.maximum(shaft, np.maximum(head, 0)), _none(u)


def _nut(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    r, apothem = np.hypot(u, v), _hexagon(u, v)
    height = np.where(apothem < 1.08, 0.95 - 0.5 * np.maximum(r - 1.0, 0), 0)
    collar = (r > 0.6) & (r < 0.94)
    height = np.where(collar, 1.18 + 0.5 * _round(0.17, r - 0.77), height)
    insert = (r > 0.6) & (r < 0.77)
    return np.where(r < 0.6, 0, np.where(insert, 1.05, height)), insert


def _gear(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    wave = np.abs(((22 * angle / (2 * np.pi)) % 1) * 2 - 1)
    outline = 1.5 + 0.3 * np.clip((wave - 0.25) / 0.42, 0, 1)
    web = np.clip((np.abs(r - 0.97) - 0.29) / 0.04, 0, 1)
    height = np.where(r < 0.68, 0.8, 0.45 + 0.17 * web)
    return np.where((r < outline) & (r > 0.34), height, 0), _none(u)


def _ring(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    wire = _round(0.31, np.hypot(u, v) - 1.42)
    return np.where(wire > 0, wire + 0.31, 0), _none(u)


def _knob(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    r, angle = np.hypot(u, v), np.arctan2(v, u)
    inside = 1.42 + 0.19 * np.cos(6 * angle) - r
    crown = 0.9 + _round(0.32, np.clip(0.32 - inside, 0, 0.32))
    dish = 0.08 * np.clip((0.7 - r) / 0.05, 0, 1)
    return np.where(inside > 0, crown - dish, 0), _none(u)


def _spring(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    radius, wire, pitch, half = 0.66, 0.13, 0.42, 1.7
    swing = np.arcsin(np.clip(v / radius, -1, 1)) / (2 * np.pi)
    height = np.zeros(u.shape)
    for sign in (1, -1):  # the upper halves of the coils, then the lower ones, half a pitch on
        place = u / pitch - sign * swing + (0 if sign > 0 else 0.5)
        slope = np.sqrt(1 + (pitch / (2 * np.pi * np.maximum(_round(radius, v), 0.12))) ** 2)
        bow = _round(wire, ((place + 0.5) % 1 - 0.5) * pitch / slope)
        height = np.maximum(
            height, np.where(bow > 0, radius + wire + sign * _round(radius, v) + bow, 0)
        )
    return np.where((np.abs(u) < half) & (np.abs(v) < radius), height, 0), _none(u)


def _washer(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    return np.where(np.abs(np.hypot(u, v) - 0.91) < 0.29, 0.17, 0.0), _none(u)


def _key(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    along = np.where((u > -2.6) & (u < 2.2), np.abs(v + 0.9), 9.0)
    corner = np.where((u >= 2.2) & (v < -0.2), np.abs(np.hypot(u - 2.2, v + 0.2) - 0.7), 9.0)
    across = np.where((v >= -0.2) & (v < 1.2), np.abs(u - 2.9), 9.0)
    offset = np.min([along, corner, across], axis=0)
    return np.where(offset < 0.26, np.minimum(0.5, 0.5 - (offset - 0.14) * 1.7), 0), _none(u)


def _pin(u: Field, v: Field) -> tuple[Field, NDArray[np.bool_]]:
    body = _round(0.42, v) * (np.abs(u) < 1.4)
    return np.where(body > 0, body + 0.42, 0), _none(u)


RELIEFS: dict[str, Relief] = {
    "bolt": _bolt,
    "nut": _nut,
    "gear": _gear,
    "ring": _ring,
    "knob": _knob,
    "spring": _spring,
    "washer": _washer,
    "key": _key,
    "pin": _pin,
}
