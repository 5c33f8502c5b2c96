"""Drawn episodes: marks on textured grounds, so that matching learns more than animals.

A family is a class: a kind of shape (blob, polygon, stroke, ring, leaf), its size, and how its
surface differs from what lies below. Cracks and stains on surfaces, seedlings among weeds, parts on
a belt are all such families. Two pictures of one family differ in everything else. Every picture is
exact to the pixel and made here, so no licence binds it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SHAPES = ("blob", "polygon", "stroke", "ring", "leaf")
LEAST_PIXELS = 24  # of the class of a pair, in each of its pictures


@dataclass(frozen=True)
class Surface:
    """Colour and texture: mean RGB in 0..1, noise of two wavelengths, stretched along ``angle``."""

    colour: np.ndarray
    contrast: tuple[float, float]
    wavelength: tuple[float, float]
    angle: float
    stretch: float


@dataclass(frozen=True)
class Family:
    """What makes two marks the same class."""

    shape: str
    surface: Surface
    opacity: float
    size: float
    aspect: float
    lobes: int
    count: int
    shadow: bool


def random_surface(rng: np.random.Generator, near: np.ndarray | None = None) -> Surface:
    colour = rng.random(3)
    if rng.random() < 0.4:
        colour = np.full(3, colour[0]) + rng.normal(0, 0.02, 3)  # half of industry is grey
    if near is not None:
        colour = near + rng.normal(0, rng.choice([0.08, 0.2, 0.35]), 3)
    return Surface(
        colour=np.clip(colour, 0.02, 0.98),
        contrast=(float(rng.gamma(1.5, 0.03)), float(rng.gamma(1.5, 0.03))),
        wavelength=(float(rng.uniform(2, 8)), float(rng.uniform(10, 80))),
        angle=float(rng.uniform(0, 180)),
        stretch=float(rng.choice([1.0, 1.0, 4.0, 12.0])),
    )


def random_family(rng: np.random.Generator, ground: Surface) -> Family:
    surface = random_surface(rng, near=ground.colour if rng.random() < 0.7 else None)
    return Family(
        shape=str(rng.choice(SHAPES)),
        surface=surface,
        opacity=float(rng.choice([0.5, 0.75, 1.0, 1.0])),
        size=float(np.exp(rng.uniform(np.log(0.03), np.log(0.3)))),
        aspect=float(rng.uniform(1, 4)),
        lobes=int(rng.integers(3, 9)),
        count=int(rng.integers(1, 7)),
        shadow=bool(rng.random() < 0.3),
    )


def _noise(
    rng: np.random.Generator, side: int, wavelength: float, stretch: float, angle: float
) -> np.ndarray:
    """Unit-variance noise ``[side, side]`` of about that wavelength, stretched along an angle."""
    reach = int(side * 1.5)
    size = (max(2, int(reach / wavelength / stretch)), max(2, int(reach / wavelength)))
    field = cv2.resize(
        rng.standard_normal(size[::-1]).astype(np.float32),
        (reach, reach),
        interpolation=cv2.INTER_CUBIC,
    )
    turn = cv2.getRotationMatrix2D((reach / 2, reach / 2), angle, 1.0)
    field = cv2.warpAffine(field, turn, (reach, reach), borderMode=cv2.BORDER_REFLECT)
    start = (reach - side) // 2
    return field[start : start + side, start : start + side]


def paint(rng: np.random.Generator, surface: Surface, side: int) -> np.ndarray:
    """A surface as ``[side, side, 3]`` float32 in 0..1."""
    value = sum(
        contrast * _noise(rng, side, wavelength, surface.stretch, surface.angle)
        for contrast, wavelength in zip(surface.contrast, surface.wavelength, strict=True)
    )
    tint = 1 + rng.normal(0, 0.15, 3)
    return (surface.colour + np.asarray(value)[..., None] * tint).astype(np.float32)


def _outline(rng: np.random.Generator, family: Family, radius: float) -> np.ndarray:
    """Closed outline ``[n, 2]`` around the origin."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if family.shape == "polygon":
        corners = np.linspace(0, 2 * np.pi, family.lobes, endpoint=False) + rng.uniform(0, 6.3)
        points = np.stack([np.cos(corners), np.sin(corners)], 1) * radius
    elif family.shape == "leaf":
        reach = 0.45 + 0.55 * np.abs(np.cos(angle * family.lobes / 2)) ** 1.5
        points = np.stack([np.cos(angle), np.sin(angle)], 1) * (radius * reach)[:, None]
    else:
        wobble = sum(
            rng.normal(0, 0.25 / k) * np.cos(k * angle + rng.uniform(0, 6.3)) for k in range(2, 6)
        )
        points = (
            np.stack([np.cos(angle), np.sin(angle)], 1)
            * (radius * (1 + np.asarray(wobble)))[:, None]
        )
    points[:, 1] /= family.aspect
    turn = rng.uniform(0, 2 * np.pi)
    return points @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])


def stamp(rng: np.random.Generator, family: Family, side: int) -> np.ndarray:
    """Mask ``[side, side]`` uint8 0/255, antialiased, of all marks of a family."""
    mask = np.zeros((side, side), np.uint8)
    for _ in range(int(np.clip(rng.poisson(family.count), 1, 12))):
        radius = max(3.0, side * family.size * rng.uniform(0.7, 1.4) / 2)
        centre = rng.uniform(0.08, 0.92, 2) * side
        if family.shape == "stroke":
            steps = rng.normal(0, 0.5, (24, 1)).cumsum(0) * 0.5 + rng.uniform(0, 6.3)
            path = np.concatenate([np.cos(steps), np.sin(steps)], 1).cumsum(0) * radius / 5 + centre
            thick = max(1, int(radius / 12 * rng.uniform(0.6, 1.6)))
            cv2.polylines(
                mask, [np.round(path * 16).astype(np.int32)], False, 255, thick, cv2.LINE_AA, 4
            )
        elif family.shape == "ring":
            path = _outline(rng, family, radius) + centre
            thick = max(2, int(radius / 4))
            cv2.polylines(
                mask, [np.round(path * 16).astype(np.int32)], True, 255, thick, cv2.LINE_AA, 4
            )
        else:
            path = _outline(rng, family, radius) + centre
            cv2.fillPoly(mask, [np.round(path * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _light(rng: np.random.Generator, side: int) -> np.ndarray:
    """Uneven lighting as a factor ``[side, side, 1]``."""
    corner = rng.uniform(0.6, 1.3, (2, 2)).astype(np.float32)
    return cv2.resize(corner, (side, side), interpolation=cv2.INTER_LINEAR)[..., None]


def draw(
    rng: np.random.Generator, ground: Surface, families: list[Family], side: int
) -> tuple[np.ndarray, np.ndarray]:
    """One picture: ``([side, side, 3] uint8, mask [side, side] uint8)``.

    The mask is ``k + 1`` where ``families[k]`` is seen, else 0.
    """
    picture = paint(rng, ground, side)
    mask = np.zeros((side, side), np.uint8)
    for index in rng.permutation(len(families)):
        family = families[index]
        cover = stamp(rng, family, side)
        alpha = cover[..., None].astype(np.float32) / 255
        if family.shadow:
            offset = np.array([[1, 0, side * 0.012], [0, 1, side * 0.016]], np.float32)
            shade = cv2.GaussianBlur(
                cv2.warpAffine(cover, offset, (side, side)), (0, 0), side * 0.01
            )
            picture *= 1 - 0.45 * shade[..., None].astype(np.float32) / 255
        surface = paint(rng, family.surface, side)
        picture += alpha * family.opacity * (surface - picture)
        mask = np.where(cover > 127, np.uint8(index + 1), mask)
    picture = picture * _light(rng, side)
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.2))
    picture = picture + rng.normal(0, rng.uniform(0, 0.03), picture.shape)
    return (np.clip(picture, 0, 1) * 255).astype(np.uint8), mask


def draw_pair(rng: np.random.Generator, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Support and query ``[(pixels, mask), (pixels, mask)]`` of the same one to four families.

    The first family is seen in both.
    """
    while True:
        ground = random_surface(rng)
        families = [random_family(rng, ground) for _ in range(int(rng.integers(1, 5)))]
        other = ground if rng.random() < 0.6 else random_surface(rng, near=ground.colour)
        pair = []
        for surface in (ground, other):
            for _ in range(4):
                pixels, mask = draw(rng, surface, families, side)
                if np.count_nonzero(mask == 1) >= LEAST_PIXELS:
                    pair.append((pixels, mask))
                    break
        if len(pair) == 2:
            return pair  # else these families hide or shrink the first too well: others, then
