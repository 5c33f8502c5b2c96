"""Fruit for a table: a second kind of scene."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mesh import Array, Part, angles, rotation, tube, turn

FRUIT = ("apple", "lemon", "orange")
AROUND = 90


def _down(steps: int = 60) -> Array:
    """[steps, 1] angle from the top of a fruit to its bottom."""
    return np.linspace(1e-3, np.pi - 1e-3, steps)[:, None]


def _bump(angle: Array, width: float) -> Array:
    """A bell of height 1 around angle 0."""
    return np.asarray(np.exp(-((angle / width) ** 2)))


def _stem(base: Array, tip: Array, radius: float) -> Array:
    t = np.linspace(0, 1, 9)[:, None]
    bend = np.stack([0.25 * np.sin(t[:, 0] * 2), 0.1 * t[:, 0] ** 2, np.zeros(9)], -1) * radius * 4
    return np.asarray(base + (tip - base) * t + bend)


def _apple() -> Part:
    down, angle = _down(), angles(AROUND)
    lobes = 1 + 0.022 * np.cos(5 * angle) * (down / np.pi) ** 2 + 0.012 * np.cos(2 * angle + 1)
    radius = 3.7 * np.sin(down) ** 0.92 * (1 + 0.10 * np.cos(down)) * lobes
    height = 3.25 * np.cos(down) - 1.5 * _bump(down, 0.42) + 0.85 * _bump(np.pi - down, 0.36)
    stem = tube(_stem(np.array([0, 0, 1.6]), np.array([0.4, 0.2, 3.9]), 0.14), 0.14)
    leaning = rotation(0, 35) @ rotation(2, 40)
    return Part(
        (
            ("Apple", turn(radius, height * (1 + 0.02 * np.cos(angle))), "apple"),
            ("Stem", stem, "stem"),
        ),
        (np.eye(3), leaning, leaning),
    )


def _lemon() -> Part:
    down, angle = _down(), angles(AROUND)
    radius = 2.55 * np.sin(down) * (1 + 0.015 * np.cos(3 * angle + 2 * down))
    height = 3.1 * np.cos(down) + 0.85 * _bump(down, 0.26) - 0.55 * _bump(np.pi - down, 0.30)
    lying = rotation(1, 84)
    return Part(
        (("Lemon", turn(radius, height + 0 * angle), "lemon"),), (lying, lying @ rotation(2, 90))
    )


def _orange() -> Part:
    down, angle = _down(), angles(AROUND)
    radius = 3.6 * np.sin(down) * (1 + 0.008 * np.cos(3 * angle + 1))
    height = 3.4 * np.cos(down) - 0.22 * _bump(down, 0.16) + 0.1 * _bump(np.pi - down, 0.2)
    button = turn(
        np.array([1e-4, 0.16, 0.27, 0.3])[:, None] * (1 + 0.25 * np.cos(5 * angle)),
        np.array([3.28, 3.27, 3.24, 3.1])[:, None],
    )
    rests = (rotation(0, 30), rotation(0, 75) @ rotation(2, 20), rotation(0, 150))
    return Part(
        (("Orange", turn(radius, height + 0 * angle), "orange"), ("Button", button, "button")),
        rests,
    )


MAKERS: dict[str, Callable[[], Part]] = {"apple": _apple, "lemon": _lemon, "orange": _orange}
