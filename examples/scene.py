"""A scene: which parts lie where, on what, under which light, seen by which camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from kinds import part
from mesh import Array, rotation


@dataclass(frozen=True)
class Camera:
    """A camera over the origin that sees `span` cm of ground across the picture.

    `tilt` degrees from straight down, `turn` about the vertical, `fov` across; `aspect` is width /
    height.
    """

    span: float
    tilt: float = 20.0
    turn: float = 0.0
    fov: float = 26.0
    aspect: float = 4 / 3

    def frame(self) -> tuple[Array, Array, Array, Array]:
        """Position [3] and the unit vectors right, up and forward of the picture, each [3]."""
        distance = self.span / (2 * np.tan(np.radians(self.fov) / 2))
        turned = rotation(2, self.turn) @ rotation(0, self.tilt)
        return turned @ np.array([0, 0, distance]), turned[:, 0], turned[:, 1], -turned[:, 2]

    def project(self, points: Array) -> Array:
        """[n, 3] cm -> [n, 2] place in the picture, -1..1 left to right and bottom to top."""
        position, right, up, forward = self.frame()
        ray = points - position
        depth = ray @ forward * np.tan(np.radians(self.fov) / 2)
        return np.stack([ray @ right / depth, ray @ up / depth * self.aspect], -1)

    def ground(self, place: Array) -> Array:
        """[2] place in the picture -> [3] the point of the ground that is seen there."""
        position, right, up, forward = self.frame()
        half = np.tan(np.radians(self.fov) / 2)
        ray = forward + half * (place[0] * right + place[1] / self.aspect * up)
        return np.asarray(position - ray * (position[2] / ray[2]))


@dataclass(frozen=True)
class Item:
    """One part: its kind, its pose (rotation [3, 3], shift [3] in cm), size and finish 0..1."""

    kind: str
    pose: Array
    shift: Array
    size: float
    finish: float


@dataclass(frozen=True)
class Scene:
    """Everything a renderer needs. `surface` is of textures.SURFACES, `light` of povray.LIGHTS.

    `rail` is the distance in cm from the middle of a belt to its side guides, infinite for none.
    """

    surface: str
    light: str
    camera: Camera
    items: tuple[Item, ...]
    seed: int
    rail: float = math.inf


_DIRECTIONS = np.stack([np.cos(np.arange(72) * np.pi / 36), np.sin(np.arange(72) * np.pi / 36)])


def _reach(points: Array) -> Array:
    """[72] how far the points [n, 3] reach over the ground in 72 directions."""
    return np.asarray((points[:, :2] @ _DIRECTIONS).max(0))


def _clear(mine: Array, others: Sequence[Array], gap: float) -> bool:
    """Whether a straight line parts one's hull from each other's, with `gap` cm between them."""
    return all((-mine - np.roll(other, 36)).max() > gap for other in others)


def arrange(
    kinds: Sequence[str],
    camera: Camera,
    rng: np.random.Generator,
    *,
    size: float = 1.0,
    gap: float = 0.25,
    margin: float = 0.03,
    rail: float = math.inf,
    rest: int | None = None,
) -> tuple[Item, ...]:
    """Lay parts of these kinds on the ground, inside the picture, without touching.

    `rest` picks one resting pose for all (0 is the usual one), `rail` keeps them on a belt. What
    finds no room after 400 tries is left out.
    """
    items: list[Item] = []
    taken: list[Array] = []
    for kind in kinds:
        shape = part(kind)
        for _ in range(400):
            lying = shape.rests[rng.integers(len(shape.rests)) if rest is None else rest]
            pose = rotation(2, rng.uniform(0, 360)) @ lying
            points = shape.points @ pose.T * size
            middle = (points.max(0) + points.min(0)) / 2
            own = np.array([middle[0], middle[1], points[:, 2].min()])
            shift = camera.ground(rng.uniform(-0.95, 0.95, 2)) - own
            inside = np.abs(camera.project(points[::7] + shift)).max() <= 1 - margin
            if not inside or np.abs((points + shift)[:, 1]).max() > rail - 0.4:
                continue
            reach = _reach(points + shift)
            if _clear(reach, taken, gap):
                items.append(Item(kind, pose, shift, size, float(rng.uniform())))
                taken.append(reach)
                break
    return tuple(items)
